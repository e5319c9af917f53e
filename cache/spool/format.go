// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// A record is what the journal holds of a draft. It is never changed in place:
// see journal.change.
type record struct {
	Info
	Session []byte // of the upload; nil if there is none
	Orphan  bool   // may have been acknowledged, but cannot be published: a person must drop it
}

// An escaped string is stored as in URIs, because it may hold bytes that JSON cannot.
type escaped string

// MarshalText implements encoding.TextMarshaler.
func (s escaped) MarshalText() ([]byte, error) { return []byte(backends.EscapePart(string(s))), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *escaped) UnmarshalText(text []byte) error {
	plain, err := backends.UnescapePart(string(text))
	*s = escaped(plain)
	return err
}

// A page is the form in which a record is stored.
type page struct {
	Version    int       `json:"version"`
	ID         string    `json:"id"`
	Remote     escaped   `json:"remote"`
	Collection escaped   `json:"collection"`
	Name       escaped   `json:"name"`
	Tag        escaped   `json:"tag"`
	Revision   escaped   `json:"revision,omitempty"`
	Replaces   escaped   `json:"replaces"`
	Format     string    `json:"format,omitempty"`
	Async      bool      `json:"async,omitempty"`
	InPlace    bool      `json:"in_place,omitempty"`
	Follows    string    `json:"follows,omitempty"`
	File       escaped   `json:"file,omitempty"`
	State      string    `json:"state"`
	Size       int64     `json:"size"`
	Digest     string    `json:"digest,omitempty"`
	Stored     int64     `json:"stored,omitempty"`
	Created    time.Time `json:"created"`
	Changed    time.Time `json:"changed"`
	ModTime    time.Time `json:"modtime,omitzero"`
	Mode       uint32    `json:"mode,omitempty"`
	Attempts   int       `json:"attempts,omitempty"`
	Error      string    `json:"error,omitempty"`
	Session    []byte    `json:"session,omitempty"`
	Orphan     bool      `json:"orphan,omitempty"`
}

// A sheet is the file meta.json: a page and the checksum of its compact form.
type sheet struct {
	Page json.RawMessage `json:"draft"`
	CRC  string          `json:"crc32c"`
}

const (
	pageVersion = 1
	maxJournal  = 8 << 20 // bytes of a meta.json
	maxSession  = 4 << 20 // bytes of an upload session; base64 makes them a third longer
)

var errJournal = errors.New("damaged journal")

func encodeJournal(r *record) ([]byte, error) {
	ref := r.Target.Ref
	draft, err := json.Marshal(page{
		Version: pageVersion, ID: r.ID,
		Remote:     escaped(r.Target.Remote),
		Collection: escaped(ref.Collection),
		Name:       escaped(ref.Name),
		Tag:        escaped(ref.Tag),
		Revision:   escaped(ref.Version),
		Replaces:   escaped(r.Target.Replaces),
		Format:     r.Target.Format, Async: r.Target.Async,
		InPlace: r.Target.InPlace, Follows: r.Target.Follows, File: escaped(r.Target.File),
		State: string(r.State.stored()), Size: r.Size, Digest: r.Digest, Stored: r.Stored,
		Created: r.Created.UTC(), Changed: r.Changed.UTC(), ModTime: r.ModTime.UTC(), Mode: r.Mode,
		Attempts: r.Attempts, Error: r.Error, Session: r.Session, Orphan: r.Orphan,
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(sheet{Page: draft, CRC: checksum(draft)})
}

func checksum(b []byte) string {
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return hex.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// decodeJournal reads what encodeJournal wrote of the draft with that ID.
// Errors: errJournal with what is wrong.
func decodeJournal(data []byte, id string) (*record, error) {
	bad := func(why string) (*record, error) { return nil, fmt.Errorf("%w: %s", errJournal, why) }
	var s sheet
	if err := strictJSON(data, &s); err != nil {
		return bad(err.Error())
	}
	var draft bytes.Buffer
	if err := json.Compact(&draft, s.Page); err != nil {
		return bad(err.Error())
	}
	if checksum(draft.Bytes()) != s.CRC {
		return bad("checksum does not match")
	}
	var p page
	if err := strictJSON(s.Page, &p); err != nil {
		return bad(err.Error())
	}
	if why := p.check(id); why != "" {
		return bad(why)
	}
	return &record{Session: p.Session, Orphan: p.Orphan, Info: Info{
		ID: p.ID, State: State(p.State), Size: p.Size, Digest: p.Digest, Stored: p.Stored,
		Created: p.Created, Changed: p.Changed, ModTime: p.ModTime, Mode: p.Mode,
		Attempts: p.Attempts, Error: p.Error,
		Target: Target{
			Remote:   string(p.Remote),
			Ref:      backends.Ref{Collection: string(p.Collection), Name: string(p.Name), Tag: string(p.Tag), Version: string(p.Revision)},
			Replaces: string(p.Replaces), Format: p.Format, Async: p.Async,
			InPlace: p.InPlace, Follows: p.Follows, File: string(p.File),
		},
	}}, nil
}

func strictJSON(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the record")
	}
	return nil
}

// check returns what makes p unfit for the draft with that ID, "" if nothing.
func (p *page) check(id string) string {
	state := State(p.State)
	switch {
	case p.Version != pageVersion:
		return fmt.Sprintf("version %d", p.Version)
	case p.ID != id:
		return "record of another draft"
	case p.Size < 0 || p.Stored < 0 || p.Attempts < 0:
		return "negative count"
	case from[state] == nil || state != state.stored():
		return fmt.Sprintf("state %q", p.State)
	case state.settled() && !isSHA256(p.Digest):
		return fmt.Sprintf("digest %q", p.Digest)
	}
	return ""
}

func isSHA256(digest string) bool {
	sum, ok := strings.CutPrefix(digest, "sha256:")
	raw, err := hex.DecodeString(sum)
	return ok && err == nil && len(raw) == 32
}

// A folder is the directory of one draft.
type folder string

func (f folder) data() string { return filepath.Join(string(f), "data") }
func (f folder) meta() string { return filepath.Join(string(f), "meta.json") }

// stat describes the data file, which must be a regular one.
func (f folder) stat() (size int64, modified time.Time, err error) {
	info, err := os.Lstat(f.data())
	if err != nil {
		return 0, time.Time{}, err
	}
	if !info.Mode().IsRegular() {
		return 0, info.ModTime(), fmt.Errorf("%s is not a regular file", f.data())
	}
	return info.Size(), info.ModTime(), nil
}

func (f folder) open() (*os.File, error) {
	return backends.OpenRegular(f.data(), os.O_RDWR|backends.NoFollow, 0)
}

// read returns the journal of the draft with that ID.
// Errors: fs.ErrNotExist; errJournal; the disk's.
func (f folder) read(id string) (*record, error) {
	data, err := backends.ReadRegular(f.meta(), backends.NoFollow, maxJournal)
	if errors.Is(err, fs.ErrInvalid) || errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: %v", errJournal, err)
	}
	if err != nil {
		return nil, err
	}
	return decodeJournal(data, id)
}

// write replaces the journal, atomically; with durable it outlives power loss,
// and so do the folder and the data file as names.
func (f folder) write(r *record, durable bool) error {
	data, err := encodeJournal(r)
	if err != nil {
		return err
	}
	how := disk.Replacement{Safety: disk.Volatile, Suffix: ".tmp"}
	if durable {
		how.Safety = disk.Durable
	}
	if err := disk.Replace(f.meta(), data, how); err != nil || !durable {
		return err
	}
	return disk.SyncDir(filepath.Dir(string(f)))
}

// A dataFile is the data of one draft, which is open while it is used.
type dataFile struct {
	dir   folder
	ended *atomic.Bool // the spool was closed, which closes the file

	mu   sync.Mutex // guards the fields below
	uses int        // a busy handle, one that is held open, and each call
	file *os.File   // open while uses > 0
}

// acquire returns the file, which it opens if it is not. release gives it back.
func (d *dataFile) acquire() (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		file, err := d.dir.open()
		if err != nil {
			return nil, diskError("open "+filepath.Base(string(d.dir)), err)
		}
		d.file = file
	}
	d.uses++
	return d.file, nil
}

// release returns what is to be closed after the last use, or nil.
func (d *dataFile) release() (last *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uses--; d.uses == 0 && !d.ended.Load() {
		last, d.file = d.file, nil
	}
	return last
}

// current returns the file if it is open, or nil.
func (d *dataFile) current() *os.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.file
}

func closeData(file *os.File) error {
	if file == nil {
		return nil
	}
	return diskError("close", file.Close())
}
