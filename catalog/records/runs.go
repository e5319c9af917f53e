// SPDX-License-Identifier: Apache-2.0

package records

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// A RunPin keeps what a name meant when a run pinned it: until the run is released
// the name means that image here.
type RunPin struct {
	Run    string         `json:"run"`
	Remote string         `json:"remote"`
	Image  backends.Image `json:"image"` // as the name meant it; its Ref is the name
	Since  time.Time      `json:"since"`
	Gone   bool           `json:"gone,omitempty"` // this name is released, and the others of the run are not
}

// A named is a name of a remote.
type named struct {
	remote string
	ref    backends.Ref
}

func (p RunPin) name() named { return named{p.Remote, p.Image.Ref} }

// runs are the pins of runs. Each run has a file of its own, to which its pins are appended:
// programs on several machines pin at once, and none undoes what another wrote. Of several
// pins of one name the first counts. The zero value is ready; without a dir it keeps them in
// memory.
type runs struct {
	dir string
	mu  sync.Mutex // guards the fields below

	looked time.Time // when the files were last looked at
	seen   string    // what they were then
	all    []RunPin  // in order of time
	meant  map[named]RunPin
}

const (
	runsDir = "runs"
	runsExt = ".jsonl"
	// runsAge is how long what another program pins may go unnoticed.
	runsAge = time.Second
	// maxRun is how many bytes the name of a run has at most.
	maxRun = 128
)

// CheckRun returns fs.ErrInvalid unless name can be that of a run.
func CheckRun(name string) error {
	if name == "" || len(name) > maxRun || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w: the name of a run has 1 to %d bytes: %.40q", fs.ErrInvalid, maxRun, name)
	}
	return nil
}

func (r *runs) file(run string) string {
	return filepath.Join(r.dir, runsDir, backends.EscapePart(run)+runsExt)
}

// load reads the files if they are others than at the last look, or with now in any case.
// It needs mu.
func (r *runs) load(now bool) error {
	if r.dir == "" || !now && time.Since(r.looked) < runsAge && !r.looked.IsZero() {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(r.dir, runsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the pins of runs: %v", err)
	}
	var seen strings.Builder
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			fmt.Fprintf(&seen, "%s %d %d\n", e.Name(), info.Size(), info.ModTime().UnixNano())
		}
	}
	r.looked = time.Now()
	if seen.String() == r.seen {
		return nil
	}
	var all []RunPin
	for _, e := range entries {
		if filepath.Ext(e.Name()) != runsExt {
			continue
		}
		some, err := readRun(filepath.Join(r.dir, runsDir, e.Name()))
		if err != nil {
			return err
		}
		all = append(all, some...)
	}
	r.set(all)
	r.seen = seen.String()
	return nil
}

// readRun reads the pins of one run. A line that a crash has cut is passed over.
func readRun(path string) ([]RunPin, error) {
	text, err := backends.ReadRegular(path, backends.NoFollow, maxRecords)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // released meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %v", path, err)
	}
	var all []RunPin
	for line := range bytes.Lines(text) {
		var p RunPin
		if json.Unmarshal(line, &p) != nil || CheckRun(p.Run) != nil || p.Image.Ref.Check() != nil {
			continue
		}
		if p.Gone {
			all = slices.DeleteFunc(all, func(o RunPin) bool { return o.name() == p.name() })
		} else if !slices.ContainsFunc(all, func(o RunPin) bool { return o.name() == p.name() }) {
			all = append(all, p)
		}
	}
	return all, nil
}

// set takes in all pins. It needs mu.
func (r *runs) set(all []RunPin) {
	slices.SortStableFunc(all, func(a, b RunPin) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Run, b.Run)) })
	r.all, r.meant = all, make(map[named]RunPin, len(all))
	for _, p := range all {
		if _, pinned := r.meant[p.name()]; !pinned {
			r.meant[p.name()] = p
		}
	}
}

// RunPins returns the pins of all runs, the oldest first.
func (r *runs) RunPins() []RunPin {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.load(false) // an error shows with the next change
	return slices.Clone(r.all)
}

// PinnedFor returns the pin that says what a name means, if any run has pinned it.
func (r *runs) PinnedFor(remote string, ref backends.Ref) (RunPin, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.load(false)
	p, ok := r.meant[named{remote, ref}]
	return p, ok
}

// PinFor adds a pin, and returns it as it is from now on: where a run has pinned the name
// already, it is of the image of that pin. Errors: fs.ErrInvalid; those of the local disk.
func (r *runs) PinFor(p RunPin) (RunPin, error) {
	if err := CheckRun(p.Run); err != nil {
		return p, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(true); err != nil {
		return p, err
	}
	if before, ok := r.meant[p.name()]; ok {
		p.Image = before.Image
	}
	if slices.ContainsFunc(r.all, func(o RunPin) bool { return o.Run == p.Run && o.name() == p.name() }) {
		return p, nil
	}
	if r.dir == "" {
		r.set(append(r.all, p))
		return p, nil
	}
	if err := r.append(p); err != nil {
		return p, err
	}
	return r.meant[p.name()], nil
}

// append adds a line to the file of a run, durably. It needs mu.
func (r *runs) append(p RunPin) error {
	path := r.file(p.Run)
	err := appendJSON(path, p)
	if errors.Is(err, fs.ErrNotExist) || missing(path) {
		// The store may be shared by a group: the umask says who may read and write this.
		err = os.MkdirAll(filepath.Dir(path), 0o777)
		if err == nil {
			err = begin(path)
		}
		if err == nil {
			err = appendJSON(path, p)
		}
	}
	if err != nil {
		return backends.DiskError("write "+path, err)
	}
	return r.load(true)
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// begin makes an empty file with a durable name, unless another program has just made it.
func begin(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|backends.NoFollow, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), disk.SyncDir(filepath.Dir(path)))
}

// Release ends the pins of a run, or of those of its names alone that only returns true for;
// nil means all. It returns them. Errors: fs.ErrNotExist if there is no such run, or no such
// pin; those of the local disk.
func (r *runs) Release(run string, only func(remote string, ref backends.Ref) bool) (released []RunPin, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(true); err != nil {
		return nil, err
	}
	left := slices.DeleteFunc(slices.Clone(r.all), func(p RunPin) bool {
		gone := p.Run == run && (only == nil || only(p.Remote, p.Image.Ref))
		if gone {
			released = append(released, p)
		}
		return gone
	})
	switch {
	case len(released) == 0 && only == nil:
		return nil, backends.NotFound("no run is named %q (sreg status lists them)", run)
	case len(released) == 0:
		return nil, backends.NotFound("not pinned for the run %q", run)
	case r.dir == "":
		r.set(left)
		return released, nil
	case !slices.ContainsFunc(left, func(p RunPin) bool { return p.Run == run }):
		path := r.file(run)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, backends.DiskError("remove "+path, err)
		}
		_ = disk.SyncDir(filepath.Dir(path)) // after a power cut it may be pinned still
		return released, r.load(true)
	}
	for _, p := range released {
		p.Gone = true
		if err := r.append(p); err != nil {
			return nil, err
		}
	}
	return released, nil
}
