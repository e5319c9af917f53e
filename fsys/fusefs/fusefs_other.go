// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/sregfs/sregfs/fsys"
)

// A Mounted is a tree that is mounted. There is none on this system.
type Mounted struct{}

// Mount mounts a tree. Errors: errors.ErrUnsupported.
func Mount(_ context.Context, _ string, _ *fsys.FS, _ Options) (*Mounted, error) {
	return nil, fmt.Errorf("%w: mounting on %s", errors.ErrUnsupported, runtime.GOOS)
}

// Check finds out early why mounting would fail. Errors: errors.ErrUnsupported.
func Check(_ context.Context, _ string, _ Options) (string, error) {
	return "", fmt.Errorf("%w: mounting on %s", errors.ErrUnsupported, runtime.GOOS)
}

// Dead returns nothing: nothing is mounted.
func Dead(context.Context) []string { return nil }

// DeadIn returns nothing: see Dead.
func DeadIn(context.Context, string) []string { return nil }

// Unmount unmounts nothing. Errors: errors.ErrUnsupported.
func Unmount(string, bool) error {
	return fmt.Errorf("%w: mounting on %s", errors.ErrUnsupported, runtime.GOOS)
}

// Owner returns nobody: nothing is mounted.
func Owner(string) (uid int, ok bool) { return 0, false }

// IsMounted reports whether a file system of ours is mounted on a path.
func IsMounted(string) bool { return false }

// Path returns the mount point.
func (m *Mounted) Path() string { return "" }

// Wait waits for the unmounting.
func (m *Mounted) Wait() error { return nil }

// Settle returns when the kernel was told of all changes.
func (m *Mounted) Settle(_ context.Context) error { return nil }

// Unmount ends the mount.
func (m *Mounted) Unmount() error { return nil }

// Detach ends the mount while files are open.
func (m *Mounted) Detach() error { return nil }

// Drain refuses what is opened from now on.
func (m *Mounted) Drain() {}

// Retire refuses all but what is open.
func (m *Mounted) Retire() {}

// Written returns when no file is open for writing.
func (m *Mounted) Written(_ context.Context) error { return nil }

// Finished returns when no file is open for reading only.
func (m *Mounted) Finished(_ context.Context) error { return nil }

// Users returns the files that are open.
func (m *Mounted) Users() []User { return nil }

// Detached is closed when somebody has unmounted lazily.
func (m *Mounted) Detached() <-chan struct{} { return nil }

// Status tells how the mount works.
func (m *Mounted) Status() map[string]string { return nil }

// Refusals returns nothing: nothing is mounted.
func (m *Mounted) Refusals() []Refusal { return nil }
