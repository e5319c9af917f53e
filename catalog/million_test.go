// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/badger"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// Benchmarks of a catalogue with a million images on one remote. They need 200 MB
// of disk and some minutes; -bench Million -benchtime 5x runs them all. With a
// directory in keptEnv, what is stored is kept there for the next run.
const keptEnv = "SREGFS_TEST_MILLION"

const million = 1_000_000

// A wide is a registry with as many collections as it says, of as many images.
type wide struct {
	collections, images int
	facts               bool // its listings tell all, as those of a file service do
}

var _ backends.Lister = wide{}

// The two ways to have a million images, and the two kinds of listing.
var wides = map[string]wide{
	"flat": {1, million, false},
	"deep": {100, million / 100, false},
	"rich": {100, million / 100, true},
}

func (w wide) ref(collection, i int) backends.Ref {
	return backends.Ref{
		Collection: fmt.Sprintf("team%03d", collection),
		Name:       fmt.Sprintf("tool-%04x", i/100),
		Tag:        fmt.Sprintf("v%d.%02d-%05x", i%100/10, i%10, i/100),
	}
}

func (w wide) image(collection, i int) backends.Image {
	img := backends.Image{Ref: w.ref(collection, i), Size: -1, Format: "sif"}
	if w.facts {
		n := uint64(collection*w.images + i)
		img.Size = int64(n * 4096)
		img.Digest = fmt.Sprintf("sha256:%016x%016x%016x%016x", n*0x9e3779b97f4a7c15, n*0xbf58476d1ce4e5b9, n*0x94d049bb133111eb, n)
		img.Version = fmt.Sprintf("%016x", n*0x9e3779b97f4a7c15)
		img.Modified = time.Unix(1_700_000_000+int64(n), 0).UTC()
	}
	return img
}

func (w wide) List(_ context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		if collection == "" {
			for c := range w.collections {
				if !yield(backends.Entry{Collection: w.ref(c, 0).Collection}, nil) {
					return
				}
			}
			return
		}
		var c int
		fmt.Sscanf(collection, "team%d", &c)
		for i := range w.images {
			if !yield(backends.Entry{Image: w.image(c, i)}, nil) {
				return
			}
		}
	}
}

func (w wide) Stat(_ context.Context, ref backends.Ref) (backends.Image, error) {
	w.facts = true
	img := w.image(0, 1)
	img.Ref = ref
	return img, nil
}

func (wide) Open(context.Context, backends.Image, int64, int64) (io.ReadCloser, error) {
	return nil, fs.ErrNotExist
}

// open opens the catalogue in dir, whose one remote is w.
func (w wide) open(dir string, also func(index.Store) index.Store) (*catalog.Catalog, error) {
	return catalog.New(catalog.Options{
		Remotes: []catalog.Remote{{Name: "lab", Type: "test", Client: backends.NewClient("lab", w, backends.ClientOptions{})}},
		ListTTL: 24 * time.Hour,
		State: func() (*catalog.State, error) {
			db, err := badger.Open(filepath.Join(dir, "index"), badger.Options{Ballast: -1, Settled: debug.FreeOSMemory})
			if err != nil {
				return nil, err
			}
			var s index.Store = db
			if also != nil {
				s = also(db)
			}
			return &catalog.State{Index: index.New(s)}, nil
		},
	})
}

// use opens the catalogue of a benchmark.
func (w wide) use(b *testing.B, dir string) *catalog.Catalog {
	b.Helper()
	c, err := w.open(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	return c
}

// verbsOf returns the verbs of a catalogue that nothing is uploaded to.
func verbsOf(c *catalog.Catalog) *verbs.Verbs {
	return verbs.New(c, uploads.New(c, nil), verbs.Options{Default: "lab"})
}

// crawl lists everything.
func crawl(c *catalog.Catalog) error {
	if err := c.Refresh(context.Background(), "lab", ""); err != nil {
		return err
	}
	for e, err := range c.List(context.Background(), "lab", "") {
		if err != nil {
			return err
		}
		if err := c.Refresh(context.Background(), "lab", e.Collection); err != nil {
			return err
		}
	}
	return nil
}

func BenchmarkMillion(b *testing.B) {
	for name, w := range wides {
		b.Run(name, func(b *testing.B) {
			dir := os.Getenv(keptEnv)
			if dir != "" {
				dir = filepath.Join(dir, name)
			} else {
				dir = b.TempDir()
			}
			if _, err := os.Stat(filepath.Join(dir, "index")); err != nil {
				b.Run("Crawl", func(b *testing.B) { b.Log("crawl:", w.child(b, dir, "crawl")) })
			}
			for _, what := range []string{"idle", "list", "images", "search", "relist"} {
				b.Run("Memory/"+what, func(b *testing.B) { b.Log(what+":", w.child(b, dir, what)) })
			}
			b.Run("Open", func(b *testing.B) { w.benchOpen(b, dir) })
			b.Run("List", func(b *testing.B) { w.benchList(b, dir) })
			b.Run("Lookup", func(b *testing.B) { w.benchLookup(b, dir) })
			b.Run("Images", func(b *testing.B) { w.benchImages(b, dir, "", million) })
			for query, want := range map[string]int{
				"v4.02-0001f": w.collections, "lab://team000/tool-0001:v1": 10, "team000/tool-????:v1.03-0000*": 16, "9-0000": 160 * w.collections * w.images / 10000, "no such thing": 0,
			} {
				b.Run("Search/"+query, func(b *testing.B) { w.benchImages(b, dir, query, want) })
			}
			b.Run("Found", func(b *testing.B) { w.benchSearch(b, dir) })
			b.Run("Refresh", func(b *testing.B) { w.benchRefresh(b, dir) })
		})
	}
}

func (w wide) benchOpen(b *testing.B, dir string) {
	var usable time.Duration
	for b.Loop() {
		c, err := w.open(dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		for _, err := range c.List(context.Background(), "lab", "") {
			if err != nil {
				b.Fatal(err)
			}
		}
		usable += time.Since(start)
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(usable.Microseconds())/1000/float64(b.N), "ms-usable")
}

func (w wide) benchList(b *testing.B, dir string) {
	c := w.use(b, dir)
	b.ReportAllocs()
	began := cpuTime()
	for b.Loop() {
		n := 0
		for _, err := range c.List(context.Background(), "lab", "team000") {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != w.images {
			b.Fatalf("%d entries", n)
		}
	}
	b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(b.N*w.images), "cpu-ns/name")
}

func (w wide) benchLookup(b *testing.B, dir string) {
	c := w.use(b, dir)
	ask := func(i int) {
		if _, err := c.Lookup(context.Background(), "lab", w.ref(0, i)); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 1000 {
		ask(i)
	}
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ask(rand.IntN(1000))
		}
	})
	if !w.facts {
		return
	}
	b.Run("any", func(b *testing.B) {
		b.ReportAllocs()
		began := cpuTime()
		for b.Loop() {
			ask(rand.IntN(w.images))
		}
		b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
	})
}

func (w wide) benchImages(b *testing.B, dir, query string, want int) {
	c := w.use(b, dir)
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start, n := time.Now(), 0
		for _, err := range verbsOf(c).Images(context.Background(), verbs.ImagesOptions{Query: query, Remote: "lab"}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		took = append(took, time.Since(start))
		if n != want {
			b.Fatalf("%d images, want %d", n, want)
		}
	}
	b.ReportMetric(float64(took[0].Microseconds())/1000, "ms-first")
	if took = took[1:]; len(took) > 0 {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
	}
}

// A tally counts what is written.
type tally struct {
	index.Store
	mu     sync.Mutex
	writes int
	bytes  int
}

func (t *tally) Apply(changes ...index.KV) error {
	t.mu.Lock()
	t.writes += len(changes)
	for _, c := range changes {
		t.bytes += len(c.Key) + len(c.Value)
	}
	t.mu.Unlock()
	return t.Store.Apply(changes...)
}

func (w wide) benchRefresh(b *testing.B, dir string) {
	var t *tally
	c, err := w.open(dir, func(s index.Store) index.Store {
		t = &tally{Store: s}
		return t
	})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.ReportAllocs()
	began := cpuTime()
	for b.Loop() {
		if err := c.Refresh(context.Background(), "lab", "team000"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(t.writes)/float64(b.N), "writes/op")
	b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(b.N*w.images), "cpu-ns/name")
}

// What a process is asked to do, by memoryEnv, before it says what it takes.
const memoryEnv = "SREGFS_TEST_MEMORY"

// child has a process of its own open the catalogue in dir and do something, and
// returns what it says of its memory.
func (w wide) child(b *testing.B, dir, what string) string {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d %t", memoryEnv, dir, what, w.collections, w.images, w.facts))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%s: %v\n%s", what, err, out)
	}
	return string(out)
}

func measureMemory(order string) {
	var dir, what string
	var w wide
	if _, err := fmt.Sscan(order, &dir, &what, &w.collections, &w.images, &w.facts); err != nil {
		panic(err)
	}
	start := time.Now()
	c, err := w.open(dir, nil)
	if err == nil {
		err = w.do(c, what)
	}
	if err != nil {
		panic(err)
	}
	took := time.Since(start)
	fmt.Printf("%v\n  at once  %s\n", took.Round(time.Millisecond), rss())
	if what == "crawl" {
		time.Sleep(30 * time.Second)
	} else {
		time.Sleep(time.Second)
	}
	fmt.Printf("  settled  %s\n", rss())
	start = time.Now()
	err = c.Close()
	fmt.Printf("  closed in %v (%v); on disk %d MB\n", time.Since(start).Round(time.Millisecond), err, diskMB(dir))
}

func (w wide) do(c *catalog.Catalog, what string) error {
	ctx := context.Background()
	var err error
	switch what {
	case "idle":
		for _, err = range c.List(ctx, "lab", "") {
			break
		}
	case "crawl", "relist":
		err = crawl(c)
	case "list":
		for i := range w.collections {
			for _, err = range c.List(ctx, "lab", w.ref(i, 0).Collection) {
			}
		}
	case "images", "search":
		query := ""
		if what == "search" {
			query = "v4.02-0001f"
		}
		for _, err = range verbsOf(c).Images(ctx, verbs.ImagesOptions{Query: query}) {
		}
	}
	return err
}

// rss is what the process has in memory now, and has had at most.
func rss() string {
	text, _ := os.ReadFile("/proc/self/status")
	var all []string
	for _, name := range []string{"VmRSS", "RssAnon", "RssFile", "VmHWM"} {
		_, after, _ := strings.Cut(string(text), name+":")
		var kb int
		fmt.Sscan(after, &kb)
		all = append(all, fmt.Sprintf("%s %3d MB", name, kb>>10))
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return strings.Join(all, "  ") + fmt.Sprintf("  heap %d MB", m.HeapInuse>>20)
}

func diskMB(dir string) (mb int64) {
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				mb += info.Size()
			}
		}
		return nil
	})
	return mb >> 20
}
