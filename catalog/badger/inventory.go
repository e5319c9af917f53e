// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends/disk"
)

// The inventory says which files the index had when it was closed. Badger would
// take a shortened list of tables (MANIFEST) for a shorter database, delete the
// tables that are not in it, and answer with older values; a shortened
// table makes it panic.
const inventorySuffix = ".inventory"

// A fact is what the inventory holds of one file.
type fact struct {
	Size int64  `json:"size"` // bytes
	CRC  uint32 `json:"crc32c,omitempty"`
}

// takeInventory writes the inventory of a closed index, atomically.
func takeInventory(dir string) error {
	facts, err := survey(dir)
	if err != nil {
		return err
	}
	text, err := json.Marshal(facts)
	if err != nil {
		return err
	}
	// A rename that a power cut undoes leaves no inventory, which is allowed.
	return disk.Replace(dir+inventorySuffix, text, disk.Replacement{Safety: disk.OldOrNew, Suffix: ".new"})
}

// checkInventory compares the index with its inventory. Without one, after a
// crash, it only looks whether the list of tables is there at all: Badger takes an
// index without it for an empty one.
func checkInventory(dir string) (damage, err error) {
	have, err := survey(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(dir + inventorySuffix)
	if errors.Is(err, fs.ErrNotExist) {
		if _, ok := have["MANIFEST"]; !ok && len(have) > 0 {
			return errors.New("its list of tables is missing"), nil
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var want map[string]fact
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&want); err != nil {
		return fmt.Errorf("its inventory is damaged: %w", err), nil
	}
	if !maps.Equal(have, want) {
		return errors.New("its files are not those it was closed with"), nil
	}
	return nil, nil
}

// survey returns the facts of the files in dir. The content of tables is left
// to Badger, which checks it when it opens them.
func survey(dir string) (map[string]fact, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	facts := make(map[string]fact, len(entries))
	for _, e := range entries {
		if e.Name() == "LOCK" { // says who, and stays after a crash
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		f := fact{Size: info.Size()}
		switch e.Name() {
		case "MANIFEST", "KEYREGISTRY":
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			f.CRC = crc32.Checksum(text, castagnoli)
		}
		facts[e.Name()] = f
	}
	return facts, nil
}
