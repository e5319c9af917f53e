// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
)

// Active is the key of the settings file of sregistry that names the active backend.
const Active = "SREGISTRY_CLIENT"

// SregistryFile returns the name of the settings file of sregistry; "" without a home.
func SregistryFile(in Inputs) string {
	path := in.Getenv("SREGISTRY_CLIENT_SECRETS")
	if path == "" && in.Home != "" {
		path = filepath.Join(in.Home, ".sregistry")
	}
	return expand(path, in.Home, in.Dir)
}

// ReadSregistry returns what the settings file says: an object for each backend, and
// Active. A missing file says nothing.
func ReadSregistry(in Inputs) (top map[string]any, err error) {
	path := SregistryFile(in)
	text, err := backends.ReadRegular(path, 0, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return map[string]any{}, nil
	case err != nil:
		return nil, err
	}
	return parseSregistry(path, text)
}

func parseSregistry(path string, text []byte) (top map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // what we do not know is written as it was
	if err := d.Decode(&top); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if top == nil { // "null"
		top = map[string]any{}
	}
	return top, nil
}

// ChangeSregistry edits the settings file of sregistry, so that sregistry sees the
// change too. What edit leaves alone stays. The file is replaced at once, with mode 0600:
// it may hold passwords.
//
// Errors: those of edit; those of the local disk.
func ChangeSregistry(in Inputs, edit func(top map[string]any) error) error {
	path := SregistryFile(in)
	if path == "" {
		return errors.New("there is no home directory: set SREGISTRY_CLIENT_SECRETS")
	}
	real, unlock, err := lockFile(path)
	if err != nil {
		return err
	}
	defer unlock()
	top, err := ReadSregistry(in)
	if err != nil {
		return err
	}
	if err := edit(top); err != nil {
		return err
	}
	text, err := json.MarshalIndent(top, "", "    ")
	if err != nil {
		return err
	}
	return WriteSecret(real, append(text, '\n'))
}
