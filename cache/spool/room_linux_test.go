// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/backends/disk/disktest"
)

func TestSpool_diskFull(t *testing.T) {
	t.Parallel()
	tests := map[string]int64{"reserve": 2 << 20, "no reserve": -1}
	for name, reserve := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := disktest.Small(t, "8m")
			s := openSpool(t, dir, Options{Reserve: reserve})
			kept := create(t, s, "acknowledged")
			want := seal(t, kept).Digest
			d := create(t, s, "")
			block := bytes.Repeat([]byte("x"), 4<<10)
			var off int64
			var err error
			for err == nil && off < 16<<20 {
				_, err = d.WriteAt(block, off)
				off += int64(len(block))
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("writing %d bytes to 8 MiB: %v, want ENOSPC", off, err)
			}
			free, _, ok := disk.Space(dir)
			if !ok || free < reserve {
				t.Errorf("%d bytes left free, want %d", free, reserve)
			}
			if err := d.Allocate(0, 7<<20, Grow); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Allocate: %v, want ENOSPC", err)
			}
			if _, err := s.Create(testTarget); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Create: %v, want ENOSPC", err)
			}
			if _, err := kept.WriteAt(block, 0); reserve > 0 && (!errors.Is(err, syscall.ENOSPC) || kept.Info().State != Sealed) {
				t.Errorf("write to a sealed draft: %v, state %s", err, kept.Info().State)
			}
			if err := kept.End(io.ErrUnexpectedEOF); reserve > 0 && err != nil || kept.Info().State != Failed {
				t.Errorf("End on a full disk: %v, %s", err, kept.Info().State)
			}
			// A start while the disk is full, and life after space came back.
			s.Close()
			s = openSpool(t, dir, Options{Reserve: reserve})
			list := s.Drafts()
			if len(list) != 2 || list[0].Digest != want || list[1].State != Incomplete {
				t.Fatalf("after a restart: %+v", list)
			}
			if err := s.Discard(list[1].ID); err != nil {
				t.Fatal(err)
			}
			seal(t, create(t, s, "room again"))
		})
	}
}

func TestSpool_tooLarge(t *testing.T) {
	t.Parallel()
	d := create(t, openSpool(t, t.TempDir(), Options{}), "x")
	if _, err := d.WriteAt([]byte("x"), 1<<62); !errors.Is(err, syscall.EFBIG) && !errors.Is(err, syscall.EINVAL) {
		t.Errorf("write at 2^62: %v, want EFBIG", err)
	}
	if info := seal(t, d); info.Size != 1 {
		t.Errorf("sealed %+v", info)
	}
}
