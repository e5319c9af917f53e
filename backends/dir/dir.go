// SPDX-License-Identifier: Apache-2.0

// Package dir keeps images as files below one directory of this machine: the
// "local" remote, in the layout of the sregistry client.
//
//	<root>/<collection…>/<image>/<tag>@<sha256>.sif
//
// It reads what older versions of that client wrote too (name.go says how
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
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir/clientdb"
)

var (
	_ backends.Backend       = (*client)(nil)
	_ backends.FileOpener    = (*client)(nil)
	_ backends.Lister        = (*client)(nil)
	_ backends.Searcher      = (*client)(nil)
	_ backends.Pusher        = (*client)(nil)
	_ backends.Deleter       = (*client)(nil)
	_ backends.Mover         = (*client)(nil)
	_ backends.Copier        = (*client)(nil)
	_ backends.Tagger        = (*client)(nil)
	_ backends.VersionLister = (*client)(nil)
	_ backends.NameChecker   = (*client)(nil)
	_ backends.WriteChecker  = (*client)(nil)
)

// Config is the [remotes.NAME] table of the configuration file for type = "dir".
type Config struct {
	Path string `toml:"path"` // the root; required; made when the first image is stored
	// Extensions says which files count as images besides the usual ones.
	Extensions backends.Extensions `toml:"extensions"`
	// Database is the file of the sregistry client's database, which tells of images that
	// the files do not; "" if it is not to be looked at.
	Database       string `toml:"database"`
	UpdateDatabase bool   `toml:"update_database"` // keep it up to date
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
	c.records = records{dir: filepath.Join(path, private, recordsDir), log: env.Logger()}
	if cfg.Database != "" {
		c.records.db, c.records.write = clientdb.New(cfg.Database), cfg.UpdateDatabase
	}
	c.urls = urls{http: env.HTTP, dir: env.Cache}
	if env.Cache != "" {
		c.digests.path = filepath.Join(env.Cache, digestsFile)
	}
	return c, nil
}

// Close releases the database.
func (c *client) Close() error {
	if c.records.db == nil {
		return nil
	}
	return c.records.db.Close()
}

type client struct {
	path  string // absolute
	sweep sync.Once
	memories
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
