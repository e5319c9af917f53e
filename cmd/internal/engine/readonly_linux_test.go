// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
)

// A cache directory that cannot be written to costs room, and one warning.
func TestReadOnlyCache(t *testing.T) {
	t.Parallel()
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, dir := range []string{at, filepath.Join(at, "home", "cache")} {
		o := mustConfigure(t, "lab=oci,url=https://registry.example")
		var log strings.Builder
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		o.Settings.CacheDir = dir
		var kept string
		o.Types = slices.Clone(o.Types)
		oci := &o.Types[slices.IndexFunc(o.Types, func(t backends.Type) bool { return t.Name == "oci" })]
		openOCI := oci.Open
		oci.Open = func(ctx context.Context, env backends.Env) (backends.Backend, error) {
			kept = env.Cache
			return openOCI(ctx, env)
		}
		e := open(t, o)
		state, err := e.openState(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		if _, limit := state.Cache.Usage(); limit != maxFallbackCache {
			t.Errorf("the limit is %d", limit)
		}
		if got := state.Cache.Dir(); got != filepath.Join(o.State, "cache") {
			t.Errorf("the cache is in %s", got)
		}
		if want := filepath.Join(state.Cache.Dir(), "remotes", "lab"); kept != want {
			t.Errorf("manifests are kept in %s, want %s", kept, want)
		}
		if got := state.Cache.Warning(); !strings.Contains(got, "read-only file system") {
			t.Errorf("warning: %q", got)
		}
		if got := state.Cache.Shared(); len(got) != 1 || got[0] != dir {
			t.Errorf("also looked at: %q", got)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings:\n%s", n, log.String())
		}
		if err := errors.Join(state.Spool.Close(), state.Cache.Close(), state.Index.Close()); err != nil {
			t.Error(err)
		}
	}
}
