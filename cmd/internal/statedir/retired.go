// SPDX-License-Identifier: Apache-2.0

package statedir

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A Retired is a process that has given a state directory up and goes on because files
// of its mount are open. Each has a file, on which it holds a lock for as long as it
// lives, in the directory "retired".
type Retired struct {
	Process
	Open []OpenFile `json:"open"` // the first MaxOpen of them
	More int        `json:"more,omitempty"`
}

// MaxOpen bounds how many open files of a retired process are named.
const MaxOpen = 100

// An OpenFile is a file of a mount that somebody has open.
type OpenFile struct {
	Name    string `json:"name"` // below the mount point
	PID     int    `json:"pid,omitempty"`
	Program string `json:"program,omitempty"` // which opened it, as far as it is known
	Writing bool   `json:"writing,omitempty"`
}

// A Retirement is the entry of this process. It is not safe for concurrent use.
type Retirement struct {
	self Process
	file *os.File
}

// Retire enters this process, which holds the directory still, among those that go on
// without it.
//
// Errors: those of the local disk.
func (d *Dir) Retire() (*Retirement, error) {
	dir := retiredPath(d.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// The time tells processes with one number in two namespaces apart.
	name := strconv.Itoa(d.self.PID) + "-" + strconv.FormatInt(d.self.Start.UnixNano(), 36)
	f, err := lockFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	return &Retirement{self: d.self, file: f}, nil
}

// Tell says what is open now, and when the process ends at the latest.
// Errors: those of the local disk.
func (r *Retirement) Tell(open []OpenFile, ends time.Time) error {
	p := Retired{Process: r.self, Open: open}
	p.Socket, p.Ends = "", ends.Truncate(time.Second)
	if n := len(open); n > MaxOpen {
		p.Open, p.More = open[:MaxOpen], n-MaxOpen
	}
	return writeTo(r.file, p)
}

// Close takes the entry away.
func (r *Retirement) Close() error {
	return errors.Join(os.Remove(r.file.Name()), unlock(r.file))
}

// AllRetired returns the processes that go on without the state directory, and removes
// the entries of those that have died.
//
// Errors: those of the local disk.
func AllRetired(path string) ([]Retired, error) {
	entries, err := os.ReadDir(retiredPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Retired
	for _, e := range entries {
		p, err := retired(filepath.Join(retiredPath(path), e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return all, err
		}
		if err == nil && p.PID != 0 {
			all = append(all, p)
		}
	}
	return all, nil
}

// retired reads one entry. Errors: fs.ErrNotExist if its process has died.
func retired(name string) (p Retired, err error) {
	f, err := backends.OpenRegular(name, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return p, err
	}
	err = flock(f, shared)
	if err == nil {
		return p, errors.Join(backends.NotFound("the process of %s has ended", name), os.Remove(name), unlock(f))
	}
	f.Close()
	if !errors.Is(err, errLocked) {
		return p, err
	}
	text, err := backends.ReadRegular(name, backends.NoFollow, maxLockFile)
	if err != nil {
		return p, err
	}
	_ = json.Unmarshal(text, &p) // being written: its number is 0
	return p, nil
}

func retiredPath(dir string) string { return filepath.Join(dir, "retired") }
