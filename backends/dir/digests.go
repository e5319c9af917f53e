// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// digests are those of files that this user's processes have hashed themselves, by the
// file's state, which includes the time of the last change (ctime), which cannot be set.
// They are kept outside the store, where other users may write: a digest that stands in
// the store is believed only if nobody else can have written it (see readFacts).
type digests struct {
	path string // of the file that keeps them, a line each; "": memory only

	mu     sync.Mutex // guards the fields below
	loaded bool
	known  map[fileState]string
	begun  map[fileState]*hashing
}

// A hashing is a file that was not hashed to its end yet. A large image takes longer than
// one query may; the next query continues.
type hashing struct {
	began time.Time
	mu    sync.Mutex // guards the fields below; held while reading
	sum   hash.Hash
	off   int64
}

const (
	digestsFile = "digests"
	// maxDigests is the size in bytes, of some 30,000 digests, at which the file is removed.
	maxDigests = 4 << 20
	// settledAfter is the least age of the last change at which a further change is
	// certain to change the state, also on a file system that keeps whole seconds.
	settledAfter = 3 * time.Second
)

// noImage stands in place of a digest for a file that is no image.
const noImage = "none"

const digestLine = "%s %d %d %d %d %d\n"

// of returns the known digest; "" if there is none.
func (d *digests) of(s fileState) string {
	if known := d.told(s); known != noImage {
		return known
	}
	return ""
}

// isNoImage reports whether a file was found to be no image.
func (d *digests) isNoImage(s fileState) bool { return d.told(s) == noImage }

func (d *digests) told(s fileState) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load()
	return d.known[s]
}

// load is called with d.mu held.
func (d *digests) load() {
	if d.loaded {
		return
	}
	d.loaded, d.known, d.begun = true, map[fileState]string{}, map[fileState]*hashing{}
	if d.path == "" {
		return
	}
	f, err := backends.OpenRegular(d.path, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !backends.OnlyOurs(info) || info.Size() > maxDigests {
		_ = os.Remove(d.path)
		return
	}
	for lines := bufio.NewScanner(io.LimitReader(f, maxDigests)); lines.Scan(); {
		var digest string
		var s fileState
		n, _ := fmt.Sscanf(lines.Text()+"\n", digestLine, &digest, &s.device, &s.inode, &s.size, &s.modTime, &s.chgTime)
		if n == 6 && (digest == noImage || backends.CheckDigest(digest) == nil) {
			d.known[s] = digest
		}
	}
}

// add notes the digest, or noImage, of the file with that state. If it is lost, the file is
// read again.
func (d *digests) add(s fileState, began time.Time, digest string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load()
	delete(d.begun, s)
	if age := began.Sub(time.Unix(0, s.chgTime)); d.known[s] == digest || s.chgTime == 0 || age < settledAfter {
		return
	}
	d.known[s] = digest
	if d.path == "" || os.MkdirAll(filepath.Dir(d.path), 0o700) != nil {
		return
	}
	f, err := backends.OpenRegular(d.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|backends.NoFollow, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	// One write, so that lines of two processes do not mix.
	_, _ = fmt.Fprintf(f, digestLine, digest, s.device, s.inode, s.size, s.modTime, s.chgTime)
}

// hash returns the sha256 of an image's file, known or by reading all of it.
// Errors: ctx's, after which the next call continues; backends.ErrChanged.
func (v *view) hash(ctx context.Context, f file) (string, error) {
	in, err := v.openImage(f)
	if err != nil {
		return "", err
	}
	defer in.Close()
	return v.hashOpen(ctx, in)
}

func (v *view) hashOpen(ctx context.Context, in *os.File) (string, error) {
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	now := fileStateOf(info)
	if known := v.digests.of(now); known != "" {
		return known, nil
	}
	reading := v.digests.begin(now)
	digest, err := reading.read(ctx, in)
	if err != nil {
		return "", err
	}
	if info, err := in.Stat(); err != nil || fileStateOf(info) != now {
		v.digests.drop(now)
		return "", backends.ErrChanged
	}
	v.digests.add(now, reading.began, digest)
	return digest, nil
}

func (d *digests) begin(s fileState) *hashing {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.begun[s]
	if h == nil {
		h = &hashing{began: time.Now(), sum: sha256.New()}
		d.begun[s] = h
	}
	return h
}

func (d *digests) drop(s fileState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.begun, s)
}

func (h *hashing) read(ctx context.Context, in *os.File) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := in.ReadAt(buf, h.off)
		h.sum.Write(buf[:n])
		h.off += int64(n)
		if errors.Is(err, io.EOF) {
			return "sha256:" + hex.EncodeToString(h.sum.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// isHash reports whether a version is a sha256, with or without "sha256:" before it.
func isHash(version string) (digest string, ok bool) {
	sum := bytes.TrimPrefix([]byte(version), []byte("sha256:"))
	raw, err := hex.DecodeString(string(sum))
	return "sha256:" + string(sum), err == nil && len(raw) == sha256.Size
}
