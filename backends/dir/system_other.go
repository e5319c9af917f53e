// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package dir

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

func hasACL(*os.File) bool { return false }

func reserve(*os.File, int64) error { return nil }

func (t *tree) linkFrom(_, _ string) error { return errors.ErrUnsupported }

func fileStateOf(info fs.FileInfo) fileState {
	return fileState{inode: inode(info), size: info.Size(), modTime: info.ModTime().UnixNano()}
}

func lasting(*os.File, fileState) time.Duration { return briefly }
