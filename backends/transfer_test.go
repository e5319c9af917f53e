// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends/sched"
)

// A moody is a backend whose bodies break off or stop, as it likes.
type moody struct {
	content []byte
	opened  atomic.Int64
	body    func(ctx context.Context, nth int64, whole []byte) io.Reader
}

func (b *moody) Stat(context.Context, Ref) (Image, error) { return Image{}, errors.ErrUnsupported }

func (b *moody) Open(ctx context.Context, _ Image, off, n int64) (io.ReadCloser, error) {
	end := int64(len(b.content))
	if n >= 0 {
		end = min(off+n, end)
	}
	return io.NopCloser(b.body(ctx, b.opened.Add(1), b.content[off:end])), nil
}

// stuck gives the first bytes of a body and then nothing.
func stuck(ctx context.Context, first []byte) io.Reader {
	return io.MultiReader(bytes.NewReader(first), readerFunc(func([]byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}))
}

func transferImage(content []byte) Image {
	return Image{Ref: Ref{Collection: "c", Name: "a", Tag: "1"}, Size: int64(len(content)), Version: "1"}
}

func transferContent() []byte { return bytes.Repeat([]byte("sixteen bytes..."), 1<<16) }

// A body that breaks off is asked for again from there, as long as that brings
// something, and the reader sees nothing of it.
func TestTransfer_resumes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &moody{content: transferContent()}
		b.body = func(_ context.Context, _ int64, whole []byte) io.Reader {
			return io.MultiReader(bytes.NewReader(whole[:min(len(whole), 64<<10)]), iotest.ErrReader(io.ErrUnexpectedEOF))
		}
		c := NewClient("lab", b, ClientOptions{})
		tr := c.Transfer(t.Context(), transferImage(b.content), TransferOptions{Off: 5, N: 1 << 19, Demanded: true, Resume: func() bool { return true }})
		got, err := io.ReadAll(tr)
		if err != nil || !bytes.Equal(got, b.content[5:5+1<<19]) {
			t.Errorf("%d bytes, %v (or other bytes)", len(got), err)
		}
		if n := b.opened.Load(); n != 8 {
			t.Errorf("%d requests, want 8", n)
		}
		tr.Close()
		if !c.Scheduler().Idle() {
			t.Error("a slot was not given back")
		}
	})
}

// Nobody is left who waits: a body that breaks off is not asked for again.
func TestTransfer_unwanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &moody{content: transferContent()}
		b.body = func(context.Context, int64, []byte) io.Reader { return iotest.ErrReader(io.ErrUnexpectedEOF) }
		c := NewClient("lab", b, ClientOptions{})
		tr := c.Transfer(t.Context(), transferImage(b.content), TransferOptions{N: 9, Resume: func() bool { return false }})
		defer tr.Close()
		if _, err := tr.Read(make([]byte, 9)); !errors.Is(err, ErrUnavailable) || b.opened.Load() != 1 {
			t.Errorf("%v after %d requests, want ErrUnavailable after one", err, b.opened.Load())
		}
	})
}

// A request that is stuck is made a second time, once, on another slot.
func TestTransfer_hedges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		defer wg.Wait()
		b := &moody{content: transferContent()}
		b.body = func(ctx context.Context, nth int64, whole []byte) io.Reader {
			if nth == 1 {
				return stuck(ctx, whole[:1000])
			}
			return bytes.NewReader(whole)
		}
		c := NewClient("lab", b, ClientOptions{})
		again := int64(0)
		tr := c.Transfer(t.Context(), transferImage(b.content), TransferOptions{N: 1 << 19, Demanded: true,
			Repeat: func(n int64) bool { again += n; return true }, Go: func(fn func()) bool { wg.Go(fn); return true }})
		start := time.Now()
		got, err := io.ReadAll(tr)
		if err != nil || !bytes.Equal(got, b.content[:1<<19]) {
			t.Errorf("%d bytes, %v (or other bytes)", len(got), err)
		}
		if took := time.Since(start); took != sched.StuckMin || b.opened.Load() != 2 || again != 1<<19-1000 {
			t.Errorf("took %v, %d requests, %d bytes again; want %v, 2, %d", took, b.opened.Load(), again, sched.StuckMin, 1<<19-1000)
		}
		tr.Close()
		if !c.Scheduler().Idle() {
			t.Error("a slot was not given back")
		}
	})
}

// An image of unknown size begins anew.
func TestTransfer_restarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &moody{content: transferContent()}
		b.body = func(_ context.Context, nth int64, whole []byte) io.Reader {
			if nth < 3 {
				return io.MultiReader(bytes.NewReader(whole[:5000]), iotest.ErrReader(io.ErrUnexpectedEOF))
			}
			return bytes.NewReader(whole)
		}
		c := NewClient("lab", b, ClientOptions{})
		img := transferImage(b.content)
		img.Size = -1
		var got bytes.Buffer
		tr := c.Transfer(t.Context(), img, TransferOptions{N: -1, Demanded: true, Restart: got.Reset})
		defer tr.Close()
		if _, err := io.Copy(struct{ io.Writer }{&got}, tr); err != nil || !bytes.Equal(got.Bytes(), b.content) {
			t.Errorf("%d bytes, %v (or other bytes)", got.Len(), err)
		}
	})
}
