// SPDX-License-Identifier: Apache-2.0

package sregistry_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

// A recording is what the real server (2.1.0 on Django 3.2) answered to a list of
// requests. Its names stand for what changes: "{cid}" for what an earlier answer
// told, TIME, SHA256 and so on.
type recording struct {
	About   string
	Options struct {
		PrivateOnly         bool
		RequireAuth         bool
		ClockHours          int
		ViewLimit, Throttle int
	}
	Steps []recordedStep
}

type recordedStep struct {
	Freeze       string // "collection/name:tag", in place of a request
	Build        string // "name:tag" of what Google Cloud Build makes, likewise
	Method, Path string
	As           string            // "bearer WHO", "token WHO" (the framework's own), or "sign WHO KIND COLLECTION NAME TAG [HOURS]"
	Type         *string           // the media type that is sent, if it is not what goes without saying
	JSON         map[string]any    // what is sent
	Content      []any             // what is sent: recordedBytes(…)
	Form         map[string]any    // what is sent, as a browser does
	Sum          bool              // the digest of what is sent goes along
	Keep         map[string]string // what of the answer is kept, and where it stands there
	Answer       recordedAnswer
}

type recordedAnswer struct {
	Status  int
	Type    string
	Headers map[string]string
	JSON    any
	Bytes   int
}

// The fake answers as the real server did: the same status, the same media type, the
// same fields of the same kinds.
func TestFake_recorded(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/recorded/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var rec recording
			if err := json.Unmarshal(text, &rec); err != nil {
				t.Fatal(err)
			}
			opts := rec.Options
			srv := sregistrytest.Start(t, sregistrytest.Options{
				PrivateOnly: opts.PrivateOnly, RequireAuth: opts.RequireAuth, ViewLimit: opts.ViewLimit, Throttle: opts.Throttle, Clock: time.Duration(opts.ClockHours) * time.Hour,
			})
			for _, name := range []string{"public", "twin", "Old_Style.Name"} {
				srv.AddCollection(name, sregistrytest.User, false)
			}
			srv.AddCollection("secret", sregistrytest.User, true)
			srv.AddCollection("guests", sregistrytest.Guest, false)
			r := replay{t: t, srv: srv, kept: map[string]string{}}
			for _, step := range rec.Steps {
				r.do(step)
			}
		})
	}
}

// A replay is a recording that is played to the fake.
type replay struct {
	t    *testing.T
	srv  *sregistrytest.Server
	kept map[string]string
}

var keptName = regexp.MustCompile(`\{([\w.]+)\}`)

// fill puts what was kept in the place of its name.
func (r replay) fill(text string) string {
	return keptName.ReplaceAllStringFunc(text, func(name string) string {
		return cmp.Or(r.kept[strings.Trim(name, "{}")], name)
	})
}

func (r replay) do(step recordedStep) {
	r.t.Helper()
	if step.Build != "" {
		name, tag, _ := strings.Cut(step.Build, ":")
		r.srv.Add(sregistrytest.Image{Collection: name, Name: name, Tag: tag, Content: recordedBytes(r.t, []any{"b", 700}), Old: true})
		return
	}
	if step.Freeze != "" {
		collection, rest, _ := strings.Cut(step.Freeze, "/")
		name, tag, _ := strings.Cut(rest, ":")
		r.srv.Freeze(collection, name, tag)
		return
	}
	req := r.request(step)
	// Not the default transport, whose connections the end of any test server closes.
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer hc.CloseIdleConnections()
	resp, err := hc.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	what := fmt.Sprintf("%s %.80s as %q", step.Method, step.Path, step.As)
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != step.Answer.Status || mediaType != step.Answer.Type && resp.StatusCode/100 != 3 {
		r.t.Fatalf("%s: %d %s %.200s, the real server says %d %s", what, resp.StatusCode, mediaType, body, step.Answer.Status, step.Answer.Type)
	}
	for key := range step.Answer.Headers {
		if resp.Header.Get(key) == "" {
			r.t.Errorf("%s: no header %s", what, key)
		}
	}
	if step.Answer.Bytes > 0 && len(body) != step.Answer.Bytes {
		r.t.Errorf("%s: %d bytes, the real server gives %d", what, len(body), step.Answer.Bytes)
	}
	if tag := resp.Header.Get("ETag"); tag != "" {
		r.kept["etag"] = tag
	}
	if step.Answer.JSON == nil {
		return
	}
	var got any
	if err := json.Unmarshal(body, &got); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
	sameShape(r.t, what, got, step.Answer.JSON)
	for name, path := range step.Keep {
		r.kept[name] = fmt.Sprint(at(got, path))
	}
}

// at walks down to a value: "data.id".
func at(v any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		object, _ := v.(map[string]any)
		v = object[key]
	}
	return v
}

// sameShape compares kinds, and the words and numbers that are no names or times.
func sameShape(t *testing.T, at string, got, want any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok || !slices.Equal(slices.Sorted(maps.Keys(object)), slices.Sorted(maps.Keys(want))) {
			t.Errorf("%s: %v, the real server tells %v", at, got, want)
			return
		}
		for key := range want {
			sameShape(t, at+" "+key, object[key], want[key])
		}
	case []any:
		list, ok := got.([]any)
		if !ok || len(want) == 0 && len(list) > 0 || len(want) > 0 && len(list) == 0 {
			t.Errorf("%s: %v, the real server tells %v", at, got, want)
			return
		}
		if len(want) > 0 {
			sameShape(t, at+" 0", list[0], want[0])
		}
	case bool, nil:
		if got != want {
			t.Errorf("%s: %v, the real server tells %v", at, got, want)
		}
	default:
		if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) {
			t.Errorf("%s: %v, the real server tells %v", at, got, want)
		}
		if words, ok := want.(string); ok && (strings.HasSuffix(at, " message") || strings.HasSuffix(at, " detail")) && !masked.MatchString(words) && got != want {
			t.Errorf("%s: %q, the real server says %q", at, got, want)
		}
	}
}

var masked = regexp.MustCompile(`UUID|SERVER|STORE|SHA256|MD5|TIME|SECONDS`)

// request makes what was sent to the real server.
func (r replay) request(step recordedStep) *http.Request {
	r.t.Helper()
	address := r.fill(step.Path)
	if strings.HasPrefix(address, "/") {
		address = r.srv.URL + address
	}
	address = regexp.MustCompile(`sha256\.\(([^,]*),(\d+)\)`).ReplaceAllStringFunc(address, func(s string) string {
		name, n, _ := strings.Cut(s[len("sha256.("):len(s)-1], ",")
		return "sha256." + sumOf(recordedBytes(r.t, []any{name, n}))
	})
	body, mediaType := r.body(step)
	req, err := http.NewRequestWithContext(r.t.Context(), step.Method, address, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if step.Type != nil {
		mediaType = *step.Type
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	if auth := r.authorization(step.As); auth != "" {
		req.Header.Set("Authorization", auth)
	}
	if step.Sum {
		req.Header.Set("X-Amz-Content-Sha256", sumOf(body))
	}
	return req
}

func (r replay) body(step recordedStep) (body []byte, mediaType string) {
	r.t.Helper()
	switch {
	case step.Content != nil:
		return recordedBytes(r.t, step.Content), ""
	case step.Form != nil:
		return r.form(step)
	case step.JSON == nil:
		return nil, ""
	}
	sent := maps.Clone(step.JSON)
	for key, value := range sent {
		if text, ok := value.(string); ok {
			sent[key] = r.fill(text)
		}
	}
	if of, ok := sent["sha256sum"].([]any); ok {
		sent["sha256sum"] = sumOf(recordedBytes(r.t, of))
	}
	if parts, ok := sent["completedParts"].([]any); ok {
		part := maps.Clone(parts[0].(map[string]any))
		part["token"] = r.kept["etag"]
		sent["completedParts"] = []any{part}
	}
	text, err := json.Marshal(sent)
	if err != nil {
		r.t.Fatal(err)
	}
	if strings.HasPrefix(step.Path, "/v1/tags") {
		return text, ""
	}
	return text, "application/json"
}

func (r replay) form(step recordedStep) (body []byte, mediaType string) {
	r.t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fields := map[string]string{"SREGISTRY_EVENT": r.authorization(step.As)}
	for _, key := range []string{"name", "tag", "collection"} {
		fields[key] = r.fill(step.Form[key].(string))
	}
	for key, value := range fields {
		if err := w.WriteField(key, value); err != nil {
			r.t.Fatal(err)
		}
	}
	part, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file1"; filename="x.sif"`}, "Content-Type": {"text/plain"}})
	if err == nil {
		_, err = part.Write(recordedBytes(r.t, step.Form["content"].([]any)))
	}
	if err != nil || w.Close() != nil {
		r.t.Fatal(err)
	}
	return b.Bytes(), w.FormDataContentType()
}

// authorization is the header of a login: of the user, of a stranger, or a wrong one.
func (r replay) authorization(as string) string {
	words := strings.Fields(as)
	if len(words) == 0 {
		return ""
	}
	user := words[1]
	token := map[string]string{sregistrytest.User: sregistrytest.Token, sregistrytest.Guest: sregistrytest.GuestToken, "wrong": "n0t-a-t0k3n"}[user]
	switch words[0] {
	case "bearer":
		return "Bearer " + token
	case "token":
		return "Token " + token
	}
	if user == "wrong" {
		user = sregistrytest.User
	}
	hours := 0
	if len(words) > 6 {
		hours, _ = strconv.Atoi(words[6])
	}
	stamp := time.Now().Add(time.Duration(hours) * time.Hour).UTC().Format("20060102T15Z")
	return sregistry.Sign(user, token, words[2], stamp, words[3], words[4], words[5])
}

func sumOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// recordedBytes are n bytes that begin as a SIF does.
func recordedBytes(t *testing.T, of []any) []byte {
	t.Helper()
	n, err := strconv.Atoi(fmt.Sprint(of[1]))
	if err != nil {
		t.Fatal(err)
	}
	text := append([]byte("#!/usr/bin/env run-singularity\n\x00SIF_MAGIC\x0001\x0002\x00"), bytes.Repeat([]byte(fmt.Sprint(of[0], "\n")), n)...)
	return text[:n]
}
