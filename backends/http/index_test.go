// SPDX-License-Identifier: Apache-2.0

package http

import (
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

func mustParse(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// files are the names of the files of images in an index, and of folders, sorted.
func files(x *index) (all []string) {
	for _, name := range x.children() {
		all = append(all, name+"/")
	}
	for img := range x.all() {
		for _, it := range img.files {
			all = append(all, it.name)
		}
	}
	slices.Sort(all)
	return all
}

var usual = naming{sums: "SHA256SUMS"}

// The pages of servers that no other test runs: rclone 1.60.1, Caddy 2.6.2 and
// lighttpd 1.4.69 wrote them for the same directory; styles and pictures were cut
// out. (rclone shows a line feed as another character, and finds no such file.)
func TestParseHTML_recorded(t *testing.T) {
	t.Parallel()
	all := []string{
		"alpine:3.20.sif", `back\slash.sif`, "größe%2Fx:1.sif", `it's & <b>"q".img.gz`, "link.sif", "new\nline.sif", "sub dir/", "what?#1.sif",
	}
	for server, leaves := range map[string][]string{"rclone": {"link.sif", "new\nline.sif"}, "caddy": nil, "lighttpd": nil} {
		for folder, want := range map[string][]string{"library": all, "empty": nil} {
			text, err := os.Open(filepath.Join("testdata", server+"-"+folder+".html"))
			if err != nil {
				t.Fatal(err)
			}
			got := newIndex(usual)
			err = got.parseHTML(text, mustParse(t, "http://h/"+folder+"/"))
			text.Close()
			if err != nil || !got.whole {
				t.Errorf("%s, %s: %v, whole %v", server, folder, err, got.whole)
			}
			want = slices.DeleteFunc(slices.Clone(want), func(name string) bool { return slices.Contains(leaves, name) })
			found := slices.DeleteFunc(files(got), func(name string) bool { return strings.Contains(name, "␊") })
			if diff := cmp.Diff(want, found); diff != "" && len(want)+len(found) > 0 {
				t.Errorf("%s, %s (-want +got):\n%s", server, folder, diff)
			}
			if len(got.strays) > 0 {
				t.Errorf("%s, %s: strays %q", server, folder, got.strays)
			}
		}
	}
}

func TestChild(t *testing.T) {
	t.Parallel()
	folder := mustParse(t, "https://Lab.org/my%20images/")
	for href, want := range map[string]string{
		"a.sif": "a.sif", "./a:1.sif": "a:1.sif", "a%3A1.sif": "a:1.sif", "/my%20images/a.sif": "a.sif", "/my images/a.sif": "a.sif",
		"https://lab.org/my%20images/a.sif": "a.sif", "//lab.org/my%20images/a.sif": "a.sif", "sub/": "sub/", "./sub/": "sub/",
		"sub/../a.sif": "a.sif", " a.sif\n": "a.sif", "100%25.sif": "100%.sif", "%252F.sif": "%2F.sif", "..sif": "..sif",
		`a\b.sif`: `a\b.sif`, "%C3%B6.sif": "ö.sif", "%FF.sif": "\xff.sif", "a+b.sif": "a+b.sif", "a;b.sif": "a;b.sif",

		"": "", ".": "", "./": "", "..": "", "../": "", "../a.sif": "", "../../etc/a.sif": "", "/a.sif": "", "/": "", "sub/a.sif": "", "sub//": "",
		"%2e%2e": "", "%2e%2e/": "", "%2E/": "", "..%2fa.sif": "", "%2e%2e%2fa.sif": "", "a%2Fb.sif": "", "a%00.sif": "", "%00": "",
		"http://lab.org/my%20images/a.sif": "", "https://evil.org/my%20images/a.sif": "", "https://lab.org:8443/my%20images/a.sif": "",
		"//evil.org/a.sif": "", "https://me:pw@lab.org/my%20images/a.sif": "", "a.sif?x=1": "", "a.sif?": "", "?C=N;O=D": "", "#top": "", "a.sif#x": "",
		"a:1.sif": "", "javascript:alert(1)": "", "mailto:a.sif": "", "file:///my%20images/a.sif": "", "%zz.sif": "", "a%.sif": "", "\x00a.sif": "",
	} {
		name, isFolder, ok := child(folder, href)
		if isFolder {
			name += "/"
		}
		if name != want || ok != (want != "") {
			t.Errorf("child(%q) = %q, %v, want %q", href, name, ok, want)
		}
	}
}

func TestParseHTML(t *testing.T) {
	t.Parallel()
	folder := mustParse(t, "http://h/x/")
	for text, want := range map[string]struct {
		names  []string
		strays int
		err    error
	}{
		`<a href="a.sif">`: {[]string{"a.sif"}, 0, nil},
		`<A class=x HREF='a&amp;b.sif'>a</A> <a HREF=c.sif>`:                           {[]string{"a&b.sif", "c.sif"}, 0, nil},
		`<a href="a.sif"><a href="a.sif"><a href="b/"><a href="b/">`:                   {[]string{"a.sif", "b/"}, 0, nil},
		`<!-- <a href="a.sif"> --><script>"<a href='b.sif'>"</script><a href="c/">`:    {[]string{"c/"}, 0, nil},
		`<base href="http://evil/"><a href="a.sif">`:                                   {[]string{"a.sif"}, 0, nil},
		`<a href="//evil/a.sif"><a href="../b.sif"><a href="c.sif?x"><a href="d.sif">`: {[]string{"d.sif"}, 3, nil},
		`<link href="a.sif"><img src="b.sif"><a name="c.sif"><a><a href>`:              {nil, 0, backends.ErrBadAnswer},
		`<title>Index of /x/</title>`:                                                  {nil, 0, nil},
		`<title>Directory listing for /x/</title>`:                                     {nil, 0, nil},
		`<title>Sign in</title><a href="https://portal/login">`:                        {nil, 0, backends.ErrBadAnswer},
		`<title>Sign in</title><svg><title>Index of</title></svg>`:                     {nil, 0, backends.ErrBadAnswer},
		``: {nil, 0, backends.ErrBadAnswer},
	} {
		x := newIndex(usual)
		err := x.parseHTML(iotest.OneByteReader(strings.NewReader(text)), folder)
		if !errors.Is(err, want.err) || (err == nil) != (want.err == nil) || err == nil && (len(x.strays) != want.strays || cmp.Diff(want.names, files(x)) != "") {
			t.Errorf("%s: %q, %q, %v, want %+v", text, files(x), x.strays, err, want)
		}
	}
}

func TestParseJSON(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		names  []string
		strays int
		err    error
	}{
		"[\n]": {nil, 0, nil},
		`[{"name":"a.sif","type":"file","size":1},{"name":"b","type":"directory"},{"name":"c\n.sif"}]`:                   {[]string{"a.sif", "b/", "c\n.sif"}, 0, nil},
		`[{"name":"../a.sif"},{"name":"b/c.sif"},{"name":".."},{"name":"d\u0000.sif"},{"name":"\xff.sif"},{"name":"e"}]`: {nil, 3, backends.ErrBadAnswer},
		"[{\"name\":\"\xff.sif\"},{\"name\":\"../a.sif\"},{\"name\":\"e\"},{\"name\":7},{\"name\":null},{}]":             {nil, 2, nil},
		`{}`: {nil, 0, backends.ErrBadAnswer}, `null`: {nil, 0, backends.ErrBadAnswer}, ``: {nil, 0, backends.ErrUnavailable}, `[1]`: {nil, 0, backends.ErrBadAnswer},
		`[{"name":"a.sif","size":"1"}]`: {nil, 0, backends.ErrBadAnswer},
		`[{"name":"a.sif"}`:             {nil, 0, backends.ErrUnavailable},
		`[{"name":"a.sif"`:              {nil, 0, backends.ErrUnavailable},
	} {
		x := newIndex(usual)
		err := x.parseJSON(strings.NewReader(text))
		if !errors.Is(err, want.err) || (err == nil) != (want.err == nil) {
			t.Errorf("%s: %v, want %v", text, err, want.err)
		}
		if err == nil && (len(x.strays) != want.strays || cmp.Diff(want.names, files(x)) != "") {
			t.Errorf("%s: %q, %q, want %+v", text, files(x), x.strays, want)
		}
	}
}

// endless repeats a text for 10 GB, as far as somebody reads.
type endless struct {
	text string
	at   int64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.at > 10<<30 {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) {
		copied := copy(p[n:], e.text[e.at%int64(len(e.text)):])
		n, e.at = n+copied, e.at+int64(copied)
	}
	return n, nil
}

// Whatever comes without an end is given up, at a number of bytes or of names.
func TestEndless(t *testing.T) {
	t.Parallel()
	const bytes, most = 2 << 20, 1000
	folder := mustParse(t, "http://h/x/")
	little := func() *index { x := newIndex(usual); x.most = most; return x }
	page := func(r io.Reader) error { return little().parseHTML(r, folder) }
	array := func(r io.Reader) error { return little().parseJSON(r) }
	sums := func(r io.Reader) error { _, err := usual.parseSums(r, most); return err }
	for _, c := range []struct {
		kind       string
		read       func(io.Reader) error
		once, text string
	}{
		{"page", page, "", strings.Repeat("spaces  ", 1000)}, {"page", page, "", "<p>paragraphs"}, {"page", page, "", "<a href=\"a.sif\">\n"},
		{"page", page, "<a href=\"", "attribute"}, {"page", page, "<!--", "comment"}, {"page", page, "<script>", "script"}, {"page", page, "", "<"},
		{"JSON", array, "", strings.Repeat(" ", 1000)}, {"JSON", array, "", "["}, {"JSON", array, `[{"name":"`, "a long name "}, {"JSON", array, "[{}", `,{"name":"a"}`},
		{"sums", sums, "", strings.Repeat("0", 64) + "  a.sif\n"}, {"sums", sums, "", "one line"}, {"sums", sums, "", "\n"},
	} {
		r := &endless{text: c.text}
		if err := c.read(&capped{r: io.MultiReader(strings.NewReader(c.once), r), left: bytes}); !errors.Is(err, backends.ErrBadAnswer) {
			t.Errorf("%s, %s%.20q for ever: %v, want ErrBadAnswer", c.kind, c.once, c.text, err)
		}
		if r.at > bytes+1<<16 {
			t.Errorf("%s, %s%.20q for ever: %d bytes were read", c.kind, c.once, c.text, r.at)
		}
	}
	var lines strings.Builder
	for i := range most + 1 {
		fmt.Fprintf(&lines, "%064x  %d.sif\n", i, i)
	}
	if _, err := usual.parseSums(strings.NewReader(lines.String()), most); !errors.Is(err, backends.ErrBadAnswer) {
		t.Errorf("%d names with digests: %v", most+1, err)
	}
}

// A million names are taken, and no more; those are there then.
func TestIndex_tooMany(t *testing.T) {
	t.Parallel()
	lines := 0
	page := &generator{tail: "</html>", line: func() string {
		if lines++; lines > maxNames+1 {
			return ""
		}
		return fmt.Sprintf("<a href=%d%%3A1>", lines)
	}}
	x := newIndex(usual)
	err := x.parseHTML(page, mustParse(t, "http://h/x/"))
	if !errors.Is(err, errLimit) || !strings.Contains(err.Error(), "1000000 names") || len(x.images) != maxNames {
		t.Errorf("%d names: %v with %d of them", maxNames+1, err, len(x.images))
	}
}

// The same of an answer: 10 GB of it.
func TestEndless_answer(t *testing.T) {
	t.Parallel()
	r := &endless{text: strings.Repeat("<a href=a>", 1000)}
	resp := &nethttp.Response{Header: nethttp.Header{"Content-Type": {"text/html"}}, Body: io.NopCloser(r)}
	if err := newIndex(usual).read(resp, mustParse(t, "http://h/x/")); !errors.Is(err, errLimit) || r.at > maxPage {
		t.Errorf("%v after %d bytes, want the limit", err, r.at)
	}
}

func TestParseSum(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0123456789abcdef", 4)
	for line, want := range map[string]string{
		hex + "  a.sif": "a.sif", hex + " *a.sif": "a.sif", hex + "   a.sif": " a.sif", strings.ToUpper(hex) + "  a.sif": "a.sif",
		`\` + hex + `  a\nb\\c\rd.sif`: "a\nb\\c\rd.sif", hex + `  a\nb.sif`: `a\nb.sif`,
		"SHA256 (a.sif) = " + hex: "a.sif", "SHA256 (a) = b (c).sif) = " + hex: "a) = b (c).sif", `\SHA256 (a\\b.sif) = ` + hex: `a\b.sif`,
		"": "", hex: "", hex + " ": "", hex + " a.sif": "", hex[1:] + "  a.sif": "", hex + "0  a.sif": "", "z" + hex[1:] + "  a.sif": "",
		"SHA256 (a.sif) = " + hex[1:]: "", "MD5 (a.sif) = " + hex[:32]: "", "SHA512 (a.sif) = " + hex + hex: "", "# comment": "", "SHA256 (": "",
	} {
		name, sum, ok := parseSum(line)
		if ok != (want != "") || ok && (name != want || sum.String() != "sha256:"+hex) {
			t.Errorf("%q: %q, %s, %v, want %q", line, name, sum, ok, want)
		}
	}
	lines := []string{hex + "  a.sif", hex + "  ./b.sif", hex + "  c/d.sif", hex + "  e.txt", hex + "  f.sif", strings.Repeat("1", 64) + "  f.sif", "-----BEGIN"}
	got, err := usual.parseSums(strings.NewReader(strings.Join(lines, "\n")), maxSummed)
	if len(got) != 2 || got["a.sif"].String() != "sha256:"+hex || got["b.sif"] != got["a.sif"] || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

// With the setting, names without a tag count too.
func TestParseName_extensions(t *testing.T) {
	t.Parallel()
	n := naming{also: backends.Extensions{"", ".sqsh"}, sums: "digests"}
	for base, want := range map[string]string{
		"samtools-1.20": "samtools-1.20 latest bare", "tool": "tool latest bare", "tool:latest": "tool latest plain", "a%2Fb": "a/b latest bare",
		"a+b": "a+b latest bare", "x.sqsh": "x.sqsh latest bare", "x:1.sqsh": "x 1.sqsh plain", "tool.sif": "tool latest sif",
	} {
		name, tag, format, ok := n.parse(base)
		if got := name + " " + tag + " " + format; !ok || got != want {
			t.Errorf("%s is %q, want %q", base, got, want)
		}
	}
	for _, base := range []string{"README", "digests", "index.html", "x.squashfs", ".tool", "MD5SUMS"} {
		if name, tag, _, ok := n.parse(base); ok {
			t.Errorf("%q is the image %s:%s", base, name, tag)
		}
	}
}

// A link that is read the short way means what it means as a URL.
func FuzzChild(f *testing.F) {
	for _, seed := range []string{"a.sif", "a%3A1/", "%2e%2e", "%2e%2e/", "a%2Fb", "%00", "%zz", "a+b", "~a", "-", "a%", "%2F", "..a", "a//", "%2e/"} {
		f.Add(seed)
	}
	folder, err := url.Parse("http://h/my%20images/")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, href string) {
		if bare, _ := strings.CutSuffix(href, "/"); !isSegment(bare) {
			return
		}
		name, isFolder, ok := child(folder, href)
		long, longFolder, longOK := child(folder, folder.String()+href) // that is no segment
		if name != long || isFolder != longFolder || ok != longOK {
			t.Errorf("%q is %q, %v, %v, and as a URL %q, %v, %v", href, name, isFolder, ok, long, longFolder, longOK)
		}
	})
}

func FuzzIndex(f *testing.F) {
	for _, seed := range []string{
		`<title>Index of /</title><a href="../">`, `<a href="a%3A1.sif"><a href="sub/">`, `<a href="%2e%2e%2fa.sif">`, `<a href="//evil/a.sif">`,
		`[{"name":"a:1.sif","type":"file","size":5,"mtime":"Sat, 28 Nov 2026 22:42:02 GMT"}]`, `[{"name":"../a.sif"}]`,
	} {
		f.Add(seed)
	}
	folder, err := url.Parse("http://h/my%20images/")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(*index) error{
			func(x *index) error { return x.parseHTML(strings.NewReader(text), folder) },
			func(x *index) error { return x.parseJSON(strings.NewReader(text)) },
		} {
			x := newIndex(naming{also: backends.Extensions{""}})
			if parse(x) != nil {
				continue
			}
			for img := range x.all() {
				for _, it := range img.files {
					// What is asked for is the file that was named, and nothing outside.
					if name, _, ok := child(folder, folder.String()+segment(it.name)); !isPlain(it.name) || !ok || name != it.name {
						t.Errorf("%q tells of %q, which is asked for as %q", text, it.name, name)
					}
					roundTrip(t, it.name)
				}
			}
		}
	})
}

func FuzzSums(f *testing.F) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, seed := range []string{hex + "  a:1.sif\n", hex + " *a.sif", `\` + hex + `  a\nb.sif`, "SHA256 (a.img.gz) = " + hex, hex + "  ../a.sif"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		digests, err := usual.parseSums(strings.NewReader(text), maxSummed)
		if err != nil {
			return
		}
		for name, sum := range digests {
			if !isPlain(name) {
				t.Errorf("%q tells of %q", text, name)
			}
			if err := backends.CheckDigest(sum.String()); err != nil {
				t.Errorf("%q: %v", text, err)
			}
			roundTrip(t, name)
		}
	})
}

func TestParseName(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"hello:2.0.sif": "hello 2.0 sif", "hello.simg": "hello latest simg", "a:b:c.sif": "a b:c sif", "a%3Ab:1.sif": "a:b 1 sif",
		"hello+2.0.oci.tar": "hello 2.0 oci.tar", "hello:2.0.oci.tar": "hello 2.0 oci.tar", "a+b:c.oci.tar": "a+b c oci.tar",
		"samtools:1.20--h50ea8bc_1": "samtools 1.20--h50ea8bc_1 plain", "a:b:c": "a b:c plain", "a+b:c": "a+b c plain", "a%3Ab:c": "a:b c plain",
		"a+b.sif": "a+b latest sif", "hello.oci.tar": "hello latest oci.tar", "hello.img.gz": "hello latest img.gz",
	} {
		name, tag, format, ok := usual.parse(base)
		if got := name + " " + tag + " " + format; !ok || got != want {
			t.Errorf("%s is %q, want %q", base, got, want)
		}
	}
	for _, base := range []string{".sif", ".hidden.sif", "README", "samtools-1.20", "SHA256SUMS", "x:1.md5", ":1", "x:", "x.tar", "a/b.sif", "..", ""} {
		if name, tag, _, ok := usual.parse(base); ok {
			t.Errorf("%q is the image %s:%s", base, name, tag)
		}
	}
}

func FuzzName(f *testing.F) {
	for _, seed := range []string{"a:1", "a", "a:1.sqsh", "100%:1", "a:1.sif", "a.sif", ":1.sif", "a:.simg", "a%2Fb:1.img.gz", "100%:1.sif", "a@b:c@d.sif", "a:b:c.oci.tar", "%2Ehidden.sif", "\xff:1.img"} {
		f.Add(seed)
	}
	f.Fuzz(roundTrip)
}

// roundTrip checks that a file is found under the name that it is shown by.
func roundTrip(t *testing.T, base string) {
	all := naming{also: backends.Extensions{"", ".sqsh"}}
	name, tag, _, ok := all.parse(base)
	if !ok {
		return
	}
	ref := backends.Ref{Collection: "c", Name: name, Tag: tag}
	if err := ref.Check(); err != nil {
		return // left out of listings, and counted
	}
	for _, first := range append(order(""), "") {
		if got := slices.Collect(all.files(ref, "", first)); !slices.Contains(got, base) {
			t.Errorf("%q is %+v, which is looked for as %q", base, ref, got)
		}
	}
}
