// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// bundled are the commands whose answers are in a bundle. None of them prints a secret.
var bundled = [][]string{
	{"version"},
	{"doctor"},
	{"config", "show", "--origin"},
	{"status"},
	{"uploads", "ls"},
	{"cache", "du"},
	{"log", "--lines", "10000"},
}

// bundle writes what a bug report needs to a new file, which only its owner can read.
func (a *app) bundle(ctx context.Context, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	packed := gzip.NewWriter(f)
	out := tar.NewWriter(packed)
	for _, command := range bundled {
		text := a.answer(ctx, command)
		if err := ctx.Err(); err != nil {
			return err
		}
		h := &tar.Header{Name: "sregfs/" + command[0] + ".txt", Mode: 0o600, Size: int64(len(text)), ModTime: time.Now().Truncate(time.Second)}
		if err := out.WriteHeader(h); err != nil {
			return backends.DiskError("write "+path, err)
		}
		if _, err := out.Write(text); err != nil {
			return backends.DiskError("write "+path, err)
		}
	}
	if err := errors.Join(out.Close(), packed.Close()); err != nil {
		return backends.DiskError("write "+path, err)
	}
	a.notice("no secrets are in it, but names of images, remotes, users and files: look at it before you give it away")
	_, err = fmt.Fprintln(a.out, path)
	return err
}

// answer is what a command prints for the same user with the same global flags, and how it ends.
func (a *app) answer(ctx context.Context, command []string) []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "$ sreg %s\n", strings.Join(command, " "))
	own := a.line[:max(0, slices.Index(a.line, "doctor"))]
	other := &app{in: strings.NewReader(""), out: &text, err: &text, getenv: a.getenv, system: a.system}
	err := backends.Guard(a.log(), func() error { return other.run(ctx, slices.Concat(own, []string{"--output=text"}, command)) })
	if code := exit.Report(&text, "sreg", err); code != exit.OK {
		fmt.Fprintf(&text, "exit code %d\n", code)
	}
	return text.Bytes()
}
