// SPDX-License-Identifier: Apache-2.0

// Package dir keeps images as files below one directory of this machine: the
// "local" remote, in the layout of the sregistry client.
//
//	<root>/<collection…>/<image>/<tag>@<sha256>.sif
//
// It reads what older versions of that client wrote too (layout.go says how
// file names become names), needs no database, and may be used by several
// processes at once. A file appears under its name by one rename, when all of
// it is on the disk. What is known of a file beyond its name and inode (its
// digest, above all) stands in <root>/.sregfs and may be deleted at any time.
//
// It does not look into images and never changes one. Start at [Open].
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
)

var (
	_ backends.Backend      = (*client)(nil)
	_ backends.FileOpener   = (*client)(nil)
	_ backends.Lister       = (*client)(nil)
	_ backends.Searcher     = (*client)(nil)
	_ backends.Pusher       = (*client)(nil)
	_ backends.Deleter      = (*client)(nil)
	_ backends.Mover        = (*client)(nil)
	_ backends.NameChecker  = (*client)(nil)
	_ backends.WriteChecker = (*client)(nil)
)

// Config is the [remotes.NAME] table of the configuration file for type = "dir".
type Config struct {
	Path string `toml:"path"` // the root; required; made when the first image is stored
	// Extensions says which files count as images besides the usual ones.
	Extensions backends.Extensions `toml:"extensions"`
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "dir", Open: Open, Local: true, Needs: "path", Login: backends.LoginNone}

// Open is the opener. It reads nothing from the disk: the
// directory may come into being later, and is empty until then.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	var cfg Config
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	if cfg.Path == "" {
		return nil, fmt.Errorf("%w: remote %s: path is required", fs.ErrInvalid, env.Remote)
	}
	if rest, ok := strings.CutPrefix(cfg.Path, "~/"); ok && env.Home != "" {
		cfg.Path = filepath.Join(env.Home, rest)
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: remote %s: path %q: %v", fs.ErrInvalid, env.Remote, cfg.Path, err)
	}
	if err := cfg.Extensions.Check(); err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	c := &client{path: path}
	c.also = cfg.Extensions
	if env.Cache != "" {
		c.digests.path = filepath.Join(env.Cache, digestsFile)
	}
	return c, nil
}

type client struct {
	path  string // absolute
	sweep sync.Once
	memories
}

// CheckName refuses what has no room in a file name.
func (c *client) CheckName(ref backends.Ref) error {
	target := layout(ref, strings.Repeat("0", hexDigits), ".simg")
	for part := range strings.SplitSeq(target, "/") {
		if len(part) > maxComponent {
			return fmt.Errorf("%w: a file name of %d bytes (at most %d): %.40q…", fs.ErrInvalid, len(part), maxComponent, part)
		}
	}
	return nil
}

// CheckWrite implements backends.WriteChecker. It looks at what every push writes to,
// or at the directory in which that would be made.
func (c *client) CheckWrite() error {
	at := filepath.Join(c.path, private)
	for {
		err := checkWritable(at)
		if above := filepath.Dir(at); errors.Is(err, fs.ErrNotExist) && above != at {
			at = above
			continue
		}
		switch errno, ok := backends.LocalErrno(err); {
		case ok && errno == syscall.EROFS:
			return fmt.Errorf("%w: %s is on a read-only file system", backends.ErrReadOnly, c.path)
		case errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("%w: you may not write to %s", fs.ErrPermission, at)
		}
		return nil // a push tells what else is wrong
	}
}

// Stat implements backends.Backend. As Version it takes what it gives, the
// version that a file's name tells, or a digest.
func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	v := c.view()
	defer v.Close()
	f, err := v.find(ctx, ref)
	if err != nil {
		return backends.Image{}, err
	}
	return v.describe(f, v.digest(f)), nil
}

// Open implements backends.Backend.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if off < 0 {
		return nil, fmt.Errorf("%w: negative offset", fs.ErrInvalid)
	}
	f, err := c.OpenFile(ctx, img)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		f.Close()
		return http.NoBody, nil
	}
	if n < 0 {
		n = max(img.Size-off, 0)
	}
	return &body{SectionReader: io.NewSectionReader(f, off, n), file: f, version: img.Version}, nil
}

// OpenFile implements backends.FileOpener.
func (c *client) OpenFile(ctx context.Context, img backends.Image) (*os.File, error) {
	v := c.view()
	defer v.Close()
	ref := img.Ref
	ref.Version = img.Version
	found, err := v.find(ctx, ref)
	if errors.Is(err, fs.ErrNotExist) {
		ref.Version = ""
		if _, other := v.find(ctx, ref); other == nil {
			return nil, backends.ErrChanged
		}
	}
	if err != nil {
		return nil, err
	}
	looked := time.Now()
	f, err := v.openImage(found)
	if err != nil {
		return nil, localError(err)
	}
	info, err := f.Stat()
	if err != nil || versionOf(info) != img.Version {
		f.Close()
		return nil, backends.ErrChanged
	}
	if err := checkImage(f); err != nil {
		f.Close()
		if backends.IsPlain(found.format) && errors.Is(err, backends.ErrNotImage) {
			v.digests.add(stampOf(info), looked, noImage)
		}
		return nil, localError(err)
	}
	return f, nil
}

// A body is a range of an image. It ends with ErrChanged if somebody wrote to
// the file meanwhile.
type body struct {
	*io.SectionReader
	file    *os.File
	version string
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.SectionReader.Read(p)
	if err == nil || !errors.Is(err, io.EOF) {
		return n, localError(err)
	}
	if info, statErr := b.file.Stat(); statErr != nil || versionOf(info) != b.version {
		return n, backends.ErrChanged
	}
	return n, io.EOF
}

func (b *body) Close() error { return b.file.Close() }

// versionOf is what Version is made of: another size, time or inode means other
// bytes. It needs no reading, and a copy that replaces a file changes it.
func versionOf(info fs.FileInfo) string {
	b := strconv.AppendInt(make([]byte, 0, 48), info.Size(), 16)
	b = strconv.AppendInt(append(b, '-'), info.ModTime().UnixNano(), 16)
	return string(strconv.AppendUint(append(b, '-'), inode(info), 16))
}

// localError keeps of an error of this machine what the contract has a word
// for: a missing directory, say, must not look like a missing image.
func localError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errno, ok := backends.LocalErrno(err); ok {
		return fmt.Errorf("%w: %v", errno, err)
	}
	for _, s := range []error{fs.ErrPermission, backends.ErrCorrupt, backends.ErrChanged, fs.ErrInvalid, fs.ErrExist, errors.ErrUnsupported} {
		if errors.Is(err, s) {
			return err
		}
	}
	return errors.New(err.Error())
}
