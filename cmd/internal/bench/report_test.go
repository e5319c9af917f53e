// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sample is a bench with a result of each kind.
func sample() *bench {
	b := &bench{suite: "Reads <warm> & `local`"}
	b.Runs, b.Size, b.Machine = 3, 1<<20, machine{Date: "today", CPUs: 2, Programs: []string{"rclone 1"}}
	for _, v := range []float64{100, 90, 110} {
		b.add("sequential", "native", "MB/s", v)
		b.add("sequential", "sregfs", "MB/s", v*0.98)
	}
	b.suite = "Names"
	b.add("list", "sregfs", "ms", 30)
	b.add("list", "sregfs", "ms", 20)
	b.limit("list", "sregfs", 15)
	b.note("A note.")
	b.suite = "Reads <warm> & `local`"
	b.add("sequential", "rclone", "MB/s", 5)
	b.compare("sequential", "native")
	b.aim("sequential", "sregfs", "native", 0.97)
	b.aim("sequential", "rclone", "native", 0.5)
	return b
}

func TestJudge(t *testing.T) {
	t.Parallel()
	b := sample()
	var got []string
	for _, table := range b.tables() {
		for _, row := range table.Rows {
			got = append(got, strings.Join(row, "; "))
		}
	}
	want := []string{
		"sequential; native; 100 MB/s; 90 – 110; ; ; ",
		"; sregfs; 98 MB/s; 88.2 – 108; 0.98 of native; ≥ 0.97 of native; met",
		"; rclone; 5 MB/s; 5 – 5; 0.05 of native; ≥ 0.50 of native; MISSED",
		"list; sregfs; 25 ms; 20 – 30; ; ≤ 15 ms; MISSED",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if n, missed := b.judged(); n != 3 || len(missed) != 2 {
		t.Errorf("%d judged, %d missed, want 3 and 2", n, len(missed))
	}
}

// What is reported from the file is what was reported after the measurements.
func TestSaveLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "below", "bench.json")
	b, loaded := sample(), &bench{}
	if err := b.save(path); err != nil {
		t.Fatal(err)
	}
	if err := loaded.load(path); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.page(), loaded.page()); diff != "" {
		t.Errorf("page (-written +loaded):\n%s", diff)
	}
	if b.plot() != loaded.plot() {
		t.Error("the plot differs")
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := sample().document(dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 of 3 targets are met", "| list | sregfs | 25 ms | ≤ 15 ms |", "**missed**", "A note.", "(benchmarks.svg)"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	f, err := os.Open(filepath.Join(dir, "benchmarks.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bars := 0
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the plot is not XML: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			for _, a := range e.Attr {
				if a.Value == "met" || a.Value == "missed" {
					bars++
				}
			}
		}
	}
	if bars != 3 {
		t.Errorf("the plot has %d bars, want one for each of 3 targets", bars)
	}
}

func TestFigure(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0", 8: "8", 0.97: "0.97", 0.0123: "0.012", 2.5: "2.50", 99.94: "99.9", 123.4: "123", 1234: "1,234", 1234567.8: "1,234,568",
		25_000: "25,000", 999: "999",
	} {
		if got := figure(v); got != want {
			t.Errorf("figure(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		runs []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := (&result{Runs: test.runs}).median(); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.runs, got, test.want)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	all, err := choose("")
	if err != nil || len(all) != len(suites) {
		t.Errorf("choose(\"\") = %d suites, %v", len(all), err)
	}
	two, err := choose("stat,warm")
	if err != nil || len(two) != 2 || two[0].name != "stat" {
		t.Errorf("choose(stat,warm) = %v, %v", two, err)
	}
	if _, err := choose("nothing"); err == nil || !strings.Contains(err.Error(), "warm") {
		t.Errorf("choose(nothing) = %v, want an error that names what there is", err)
	}
	seen := make(map[string]bool)
	for _, s := range all {
		if seen[s.name] {
			t.Errorf("two suites are named %s", s.name)
		}
		seen[s.name] = true
	}
}

// The pages of a listing hold each tag once, in order.
func TestListings(t *testing.T) {
	t.Parallel()
	server := (&bench{dir: t.TempDir()}).newRegistry()
	defer server.Close()
	server.listed["a/b"] = 25
	var got []string
	next := "/v2/a/b/tags/list?n=10"
	for pages := 0; next != ""; pages++ {
		if pages > 5 {
			t.Fatal("no end of pages")
		}
		res, err := server.Client().Get(server.URL + next)
		if err != nil {
			t.Fatal(err)
		}
		var page struct{ Tags []string }
		if err := json.NewDecoder(res.Body).Decode(&page); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		got = append(got, page.Tags...)
		next, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
	}
	var want []string
	for i := range 25 {
		want = append(want, tagName(i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	res, err := server.Client().Head(server.URL + "/v2/a/b/manifests/" + tagName(3))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK || res.ContentLength <= 0 {
		t.Errorf("manifest: %s, %d bytes", res.Status, res.ContentLength)
	}
}

func measured(name, path string) (v float64, err error) {
	err = try(func() { v = measureHere(name, path) })
	return v, err
}

// The workloads of directories and names do what they say, on a plain directory.
func TestWorkloadsOfNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "names")
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("tool00:%s.sif", tagName(i))), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	writeNames(file, 300)
	if n := countNames(dir); n != 300 {
		t.Errorf("%d names are counted, want 300", n)
	}
	for _, name := range []string{"stat", "stat x8", "stat again", "stat of no name", "stat all"} {
		if _, err := measured(name, dir+"\n"+file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	writeNames(file, 301)
	if _, err := measured("stat", dir+"\n"+file); err == nil {
		t.Error("stat of a name that is not there: no error")
	}
	for _, name := range []string{"list", "drop, list", "list with stat"} {
		if _, err := measured(name, dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := measured("list", t.TempDir()); err == nil {
		t.Error("list of an empty directory: no error")
	}
}

func TestWorkloadsOfReads(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dir", "image")
	writeImage(path, 1<<20, 0)
	for _, w := range readWorkloads {
		for _, name := range []string{w.mount, w.native} {
			if v, err := measured(name, path); err != nil || v <= 0 {
				t.Errorf("%s = %v, %v", name, v, err)
			}
		}
	}
}
