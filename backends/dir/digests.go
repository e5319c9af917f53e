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

// digests are those of files that this user's processes have hashed themselves,
// by a stamp that holds the time of the last change, which nobody can set. They
// are kept apart from the store, where others may write: what the store says of a
// digest is believed only if nobody else can have said it (see readFacts).
type digests struct {
	path string // of the file that keeps them, a line each; "": memory only

	mu     sync.Mutex // guards the fields below
	loaded bool
	known  map[stamp]string
	begun  map[stamp]*hashing
}

// A hashing is a file that was not read to its end yet: a question has less time
// than a large image takes, and the next one goes on.
type hashing struct {
	began time.Time
	mu    sync.Mutex // held by who reads, guards the fields below
	sum   hash.Hash
	off   int64
}

const (
	digestsFile = "digests"
	// maxDigests is the size in bytes at which the file begins anew: some 30,000.
	maxDigests = 4 << 20
	// settledAfter is how long before the reading the last change must have been
	// for another one to be seen, also on a file system that keeps whole seconds.
	settledAfter = 3 * time.Second
)

// noImage in place of a digest says that a file is none.
const noImage = "none"

const digestLine = "%s %d %d %d %d %d\n"

// of returns what is known; "" if nothing is.
func (d *digests) of(s stamp) string {
	if known := d.told(s); known != noImage {
		return known
	}
	return ""
}

// isNoImage reports whether a file was found to be no image.
func (d *digests) isNoImage(s stamp) bool { return d.told(s) == noImage }

func (d *digests) told(s stamp) string {
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
	d.loaded, d.known, d.begun = true, map[stamp]string{}, map[stamp]*hashing{}
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
		var s stamp
		n, _ := fmt.Sscanf(lines.Text()+"\n", digestLine, &digest, &s.device, &s.inode, &s.size, &s.modTime, &s.chgTime)
		if n == 6 && (digest == noImage || backends.CheckDigest(digest) == nil) {
			d.known[s] = digest
		}
	}
}

// add notes the digest of what has that stamp, or noImage. Losing it costs reading the
// file.
func (d *digests) add(s stamp, began time.Time, digest string) {
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
	// One write, for lines of two processes not to mix.
	_, _ = fmt.Fprintf(f, digestLine, digest, s.device, s.inode, s.size, s.modTime, s.chgTime)
}

// hash returns the sha256 of an image's file: as it is known, or by reading all
// of it.
// Errors: ctx's, after which the next call goes on; backends.ErrChanged.
func (v *view) hash(ctx context.Context, f file) (string, error) {
	in, err := v.openImage(f)
	if err != nil {
		return "", err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	now := stampOf(info)
	if known := v.digests.of(now); known != "" {
		return known, nil
	}
	reading := v.digests.begin(now)
	digest, err := reading.read(ctx, in)
	if err != nil {
		return "", err
	}
	if info, err := in.Stat(); err != nil || stampOf(info) != now {
		v.digests.drop(now)
		return "", backends.ErrChanged
	}
	v.digests.add(now, reading.began, digest)
	return digest, nil
}

func (d *digests) begin(s stamp) *hashing {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.begun[s]
	if h == nil {
		h = &hashing{began: time.Now(), sum: sha256.New()}
		d.begun[s] = h
	}
	return h
}

func (d *digests) drop(s stamp) {
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

// isHash reports whether a version is a sha256, as everybody or as the names of
// files write it.
func isHash(version string) (digest string, ok bool) {
	sum := bytes.TrimPrefix([]byte(version), []byte("sha256:"))
	raw, err := hex.DecodeString(string(sum))
	return "sha256:" + string(sum), err == nil && len(raw) == sha256.Size
}
