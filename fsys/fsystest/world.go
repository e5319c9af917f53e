// SPDX-License-Identifier: Apache-2.0

// Package fsystest builds whole trees for tests: real catalogue, cache and
// spool in temporary directories, the local remote, and a remote "web" over a
// small HTTP service that counts and misbehaves on demand. It is imported from
// tests only. Start at [New].
package fsystest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sylabs/sif/v2/pkg/sif"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/mem"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/fsys"
)

// A World is a tree and what it stands on.
type World struct {
	FS      *fsys.FS
	Catalog *catalog.Catalog
	Uploads *uploads.Uploads
	Service *Service // behind the remote "web"
	Local   string   // directory of the remote "local"
	Spool   *spool.Spool
}

// Options tune a World. The zero value has the defaults.
type Options struct {
	FS     fsys.Options
	Web    catalog.Policy // of the remote "web"; "local" allows everything
	Cache  cache.Options
	OnDisk string // directory for cache, spool and local; default a temporary one
	Extra  []catalog.Remote

	MaxElapsed time.Duration // how long the remote "web" tries; default a minute
	// Wire, if not nil, makes the transport of the remote "web" of the real one.
	Wire func(next http.RoundTripper) http.RoundTripper
}

// New returns a tree with the remotes "local" and "web". It ends with the test.
func New(t testing.TB, opts Options) *World {
	t.Helper()
	base := opts.OnDisk
	if base == "" {
		base = t.TempDir()
	}
	w := &World{Service: newService(t), Local: filepath.Join(base, "local")}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	local, err := dir.Open(t.Context(), backends.Env{Remote: "local", Config: map[string]any{"path": w.Local}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	web := &web{url: w.Service.URL, http: backends.NewHTTPClient(backends.HTTPOptions{})}
	if opts.Wire != nil {
		web.http.Transport = opts.Wire(web.http.Transport)
	}
	opts.Cache.Log = log
	w.Catalog, err = catalog.New(catalog.Options{
		Remotes: append([]catalog.Remote{
			{Name: "local", Type: "dir", Client: backends.NewClient("local", local, backends.ClientOptions{Log: log}),
				Policy: catalog.Policy{Overwrite: true, Delete: true}},
			{Name: "web", Type: "web", Client: backends.NewClient("web", web, backends.ClientOptions{Log: log, MaxElapsed: opts.MaxElapsed}),
				Policy: opts.Web},
		}, opts.Extra...),
		State: func() (*catalog.State, error) {
			c, err := cache.Open(filepath.Join(base, "cache"), opts.Cache)
			if err != nil {
				return nil, err
			}
			w.Spool, err = spool.Open(filepath.Join(base, "spool"), spool.Options{Whole: uploads.IsWhole, Log: log})
			if err != nil {
				return nil, err
			}
			return &catalog.State{Index: index.New(mem.New()), Cache: c, Spool: w.Spool}, nil
		},
		Records: filepath.Join(base, "records"),
		Log:     log,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Uploads = uploads.New(w.Catalog, log)
	if err := errors.Join(w.Catalog.Start(t.Context()), w.Uploads.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background() // t.Context has ended by then
		w.Uploads.Drain(ctx)
		if err := w.Catalog.Close(); err != nil {
			t.Error(err)
		}
	})
	opts.FS.Log, opts.FS.Disk = log, base
	w.FS = fsys.New(w.Catalog, w.Uploads, opts.FS)
	return w
}

// Image returns a SIF with one squashfs of that size, at least 4 KiB: what the
// completeness gate takes for whole, filled with bytes that depend on seed.
func Image(size int, seed uint64) []byte {
	part, err := sif.NewDescriptorInput(sif.DataPartition, bytes.NewReader(Squashfs(size, seed)),
		sif.OptPartitionMetadata(sif.FsSquash, sif.PartPrimSys, "amd64"))
	if err != nil {
		panic(err)
	}
	buf := sif.NewBuffer(nil)
	img, err := sif.CreateContainer(buf, sif.OptCreateDeterministic(), sif.OptCreateWithDescriptors(part))
	if err != nil {
		panic(err)
	}
	if err := img.UnloadContainer(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// Squashfs is Image without the SIF around it.
func Squashfs(size int, seed uint64) []byte {
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	_, _ = rng.Read(b)
	const used, idTable = 40, 48
	head := b[:96]
	clear(head)
	copy(head, "hsqs")
	le := binary.LittleEndian
	le.PutUint32(head[4:], 1)       // inodes
	le.PutUint32(head[12:], 131072) // block size
	le.PutUint16(head[20:], 1)      // gzip
	le.PutUint16(head[22:], 17)     // log2 of the block size
	le.PutUint16(head[26:], 1)      // ids
	le.PutUint16(head[28:], 4)      // version 4.0
	end := uint64(size)
	le.PutUint64(head[used:], end)
	le.PutUint64(head[idTable:], end-8)
	le.PutUint64(head[56:], ^uint64(0)) // no xattrs
	le.PutUint64(head[64:], end-1024)   // inode table
	le.PutUint64(head[72:], end-512)    // directory table
	le.PutUint64(head[80:], ^uint64(0)) // no fragments
	le.PutUint64(head[88:], ^uint64(0)) // no export table
	le.PutUint64(b[end-8:], end-64)
	return b
}

// Overlay is Image with an overlay behind it, the ext3 file system that disk holds;
// off is where that begins.
func Overlay(t testing.TB, size int, seed uint64, disk []byte) (content []byte, off int64) {
	t.Helper()
	buf := sif.NewBuffer(Image(size, seed))
	img, err := sif.LoadContainer(buf)
	if err != nil {
		t.Fatal(err)
	}
	part, err := sif.NewDescriptorInput(sif.DataPartition, bytes.NewReader(disk),
		sif.OptPartitionMetadata(sif.FsExt3, sif.PartOverlay, "amd64"))
	if err == nil {
		err = img.AddObject(part)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := img.GetDescriptor(sif.WithPartitionType(sif.PartOverlay))
	if err != nil {
		t.Fatal(err)
	}
	if err := img.UnloadContainer(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), d.Offset()
}

// Need skips the test, unless SREGFS_NOSKIP=1, which makes it fail instead.
func Need(t testing.TB, ok bool, what string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("SREGFS_NOSKIP") == "1":
		t.Fatalf("%s is needed (SREGFS_NOSKIP=1)", what)
	default:
		t.Skipf("%s is needed", what)
	}
}

// Verbs returns what the sreg command would use of the same catalogue.
func (w *World) Verbs() *verbs.Verbs { return verbs.New(w.Catalog, w.Uploads, verbs.Options{}) }
