// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// CompleteImage is the completeness gate: is r a whole SIF or squashfs image, and
// which?
//
// Errors: inspect.ErrIncomplete, which is a backends.ErrCorrupt, and
// inspect.ErrNotImage, which is an fs.ErrInvalid, with what is wrong; those of r.
func CompleteImage(r io.ReaderAt, size int64) (format string, err error) {
	return inspect.Complete(r, size)
}

// IsWhole reports whether r holds a whole image: see spool.Options.Whole.
func IsWhole(r io.ReaderAt, size int64) bool {
	_, err := CompleteImage(r, size)
	return err == nil
}

// Mounted reports whether a file system in the image is mounted for writing: then the
// file is not in a state to be published.
func Mounted(r io.ReaderAt, size int64) bool {
	return errors.Is(inspect.Unmounted(r, size), inspect.ErrMounted)
}

// gate returns what a draft for that target must pass before it is published.
func gate(target spool.Target) spool.Check {
	if !target.InPlace {
		return CompleteImage
	}
	return func(r io.ReaderAt, size int64) (string, error) {
		if err := inspect.Unmounted(r, size); err != nil {
			return "", err
		}
		return CompleteImage(r, size)
	}
}

// Digest returns the SHA-256 of all that f has.
// Errors: those of f; ctx's.
func Digest(ctx context.Context, f io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, contextReader(ctx, f)); err != nil {
		return "", err
	}
	return index.SHA256Prefix + hex.EncodeToString(h.Sum(nil)), nil
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// contextReader ends with an error when ctx does.
func contextReader(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

// shut closes a handle of a draft: its error has nothing to say.
func shut(c io.Closer) { c.Close() }
