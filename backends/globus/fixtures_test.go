// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/globus/globustest"
)

// A fixture is an answer of Globus as its own clients are tested with: testdata/README.md.
type fixture struct {
	Name   string          `json:"name"`
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Status int             `json:"status"`
	JSON   json.RawMessage `json:"json"`
}

func fixtures(t *testing.T) map[string]fixture {
	t.Helper()
	text, err := os.ReadFile("testdata/fixtures.json")
	var all []fixture
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]fixture{}
	for _, f := range all {
		byName[f.Name] = f
	}
	return byName
}

// decode makes of JSON what a shape can be told of.
func decode(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// surplus returns the fields that got has and want has not, or has as something else: what a
// client could rely on without Globus having it. null stands for anything.
func surplus(at string, got, want any) (all []string) {
	if got == nil || want == nil {
		return nil
	}
	switch got := got.(type) {
	case map[string]any:
		want, ok := want.(map[string]any)
		if !ok {
			return []string{at}
		}
		for key, value := range got {
			wanted, ok := want[key]
			if !ok {
				all = append(all, at+"."+key)
				continue
			}
			all = append(all, surplus(at+"."+key, value, wanted)...)
		}
	case []any:
		want, ok := want.([]any)
		if !ok {
			return []string{at}
		}
		if len(got) > 0 && len(want) > 0 {
			return surplus(at+"[0]", got[0], want[0])
		}
	default:
		if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) {
			return []string{fmt.Sprintf("%s (%T, not %T)", at, got, want)}
		}
	}
	return all
}

// raw sends a request to the fake with a token of its app and returns status and body.
func raw(t *testing.T, srv *globustest.Server, c *client, method, path string, body any) (int, []byte) {
	t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	token, err := c.tokens.get(t.Context(), transferServer)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	authorize(req, token)
	return send(t, c, req)
}

func send(t *testing.T, c *client, req *http.Request) (int, []byte) {
	t.Helper()
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body json.RawMessage
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// The fake tells nothing that Globus does not, and refuses as it does.
func TestFake_fixtures(t *testing.T) {
	t.Parallel()
	want := fixtures(t)
	srv := globustest.Start(t, globustest.Options{})
	id := srv.Add(globustest.Collection{Name: "lab"})
	mapped := srv.Add(globustest.Collection{Name: "mapped", DataAccess: true})
	strict := srv.Add(globustest.Collection{Name: "strict", Domain: "example.org"})
	srv.Put(id, "/c/a:1.sif", []byte("abc"), time.Now())
	c := open(t, srv, nil, map[string]any{"endpoint": id}, secret)
	on := func(id, name string) string { return transferAPI + operation(id, name) }
	ask := func(name, method, path string, body any) []byte {
		t.Helper()
		f, ok := want[name]
		if !ok {
			t.Fatalf("no fixture %s", name)
		}
		status, text := raw(t, srv, c, method, path, body)
		if f.Status >= 400 && status != f.Status || f.Status < 400 && status/100 != 2 {
			t.Errorf("%s: status %d, Globus has %d", name, status, f.Status)
		}
		got, wanted := decode(t, text), decode(t, f.JSON)
		if list, ok := wanted.(map[string]any)["DATA"].([]any); ok && name == "endpoint-search" {
			list[0] = decode(t, want["endpoint-v5"].JSON) // there it is an outline
		}
		if extra := surplus(name, got, wanted); len(extra) > 0 {
			t.Errorf("%s: the fake tells what Globus does not: %v", name, extra)
		}
		got, wanted = got.(map[string]any)["code"], wanted.(map[string]any)["code"]
		if got != wanted {
			t.Errorf("%s: code %v, Globus has %v", name, got, wanted)
		}
		return text
	}
	ask("endpoint-v5", "GET", transferAPI+"/endpoint/"+id, nil)
	ask("stat", "GET", on(id, "stat")+"?path=/c/a:1.sif", nil)
	ask("stat-not-found", "GET", on(id, "stat")+"?path=/c/b:1.sif", nil)
	ask("ls", "GET", on(id, "ls")+"?path=/c/", nil)
	ask("ls-folders", "GET", on(id, "ls")+"?path=/", nil)
	ask("mkdir", "POST", on(id, "mkdir"), map[string]string{"DATA_TYPE": "mkdir", "path": "/empty"})
	ask("ls-empty", "GET", on(id, "ls")+"?path=/empty/", nil)
	ask("rename", "POST", on(id, "rename"), map[string]string{"DATA_TYPE": "rename", "old_path": "/c/a:1.sif", "new_path": "/c/a:2.sif"})
	ask("consent-required", "GET", on(mapped, "ls")+"?path=/", nil)
	ask("login-failed", "GET", on(strict, "ls")+"?path=/", nil)
	ask("endpoint-search", "GET", transferAPI+"/endpoint_search?filter_scope=my-endpoints", nil)
	submit := func() (task string) {
		t.Helper()
		var sub struct {
			Value string `json:"value"`
		}
		if err := json.Unmarshal(ask("submission-id", "GET", transferAPI+"/submission_id", nil), &sub); err != nil {
			t.Fatal(err)
		}
		var deleted struct {
			TaskID string `json:"task_id"`
		}
		text := ask("delete", "POST", transferAPI+"/delete", map[string]any{
			"DATA_TYPE": "delete", "submission_id": sub.Value, "endpoint": id,
			"DATA": []any{map[string]string{"DATA_TYPE": "delete_item", "path": "/c/none"}},
		})
		if err := json.Unmarshal(text, &deleted); err != nil {
			t.Fatal(err)
		}
		return transferAPI + "/task/" + deleted.TaskID
	}
	task := submit()
	ask("task-queued", "GET", task, nil)
	ask("task-succeeded", "GET", task, nil)
	srv.Break(id, globustest.Fault{Fatal: "FILE_NOT_FOUND"})
	task = submit()
	ask("task-queued", "GET", task, nil)
	ask("task-failed", "GET", task, nil)
	ask("cancel", "POST", func() string { srv.Break(id, globustest.Fault{NiceStatus: "PERMISSION_DENIED"}); return submit() }()+"/cancel", nil)
	srv.Lapse()
	ask("not-authenticated", "GET", on(id, "ls")+"?path=/", nil)
}

// So do the answers of Globus Auth.
func TestFake_tokens(t *testing.T) {
	t.Parallel()
	want := fixtures(t)
	srv := globustest.Start(t, globustest.Options{})
	c := open(t, srv, nil, map[string]any{}, secret)
	for name, form := range map[string]url.Values{
		"token-app":           {"grant_type": {"client_credentials"}, "scope": {transferScope}},
		"token-invalid-grant": {"grant_type": {"authorization_code"}, "code": {"none"}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+tokenPath, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth(globustest.App, globustest.Secret)
		status, text := send(t, c, req)
		if extra := surplus(name, decode(t, text), decode(t, want[name].JSON)); len(extra) > 0 || status != want[name].Status {
			t.Errorf("%s: status %d, and what Globus does not tell: %v", name, status, extra)
		}
	}
}

// replay is a Globus that answers with fixtures: each request takes the next of those for its
// method and the last part of its path that is no UUID.
func replay(t *testing.T, names ...string) *client {
	t.Helper()
	all := fixtures(t)
	var left []fixture
	for _, name := range append([]string{"token-app"}, names...) {
		if all[name].Name == "" {
			t.Fatalf("no fixture %s", name)
		}
		left = append(left, all[name])
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := slices.IndexFunc(left, func(f fixture) bool { return f.Method == r.Method && verb(f.Path) == verb(r.URL.Path) })
		if i < 0 {
			t.Errorf("%s %s has no answer", r.Method, r.URL)
			w.WriteHeader(http.StatusTeapot)
			return
		}
		f := left[i]
		if len(left) > 1 && verb(f.Path) != "token" {
			left = slices.Delete(left, i, i+1)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(f.Status)
		_, _ = w.Write(f.JSON)
	}))
	t.Cleanup(srv.Close)
	return open(t, &globustest.Server{URL: srv.URL}, nil, map[string]any{"endpoint": replayed}, secret)
}

func verb(path string) (last string) {
	for part := range strings.SplitSeq(path, "/") {
		if !isID(part) {
			last = part
		}
	}
	return last
}

const replayed = "aa752cea-8222-5bc8-acd9-555b090c0ccb"

// What Globus answers means here what it is meant to.
func TestFixtures(t *testing.T) {
	t.Parallel()
	at := place{replayed, "/x"}
	t.Run("stat", func(t *testing.T) {
		t.Parallel()
		f, err := store{replay(t, "stat")}.Stat(t.Context(), "file1.txt")
		if want := time.Date(2023, 12, 18, 16, 52, 50, 0, time.UTC); err != nil || f.Size != 4 || !f.Modified.Equal(want) {
			t.Errorf("%+v, %v", f, err)
		}
	})
	t.Run("ls", func(t *testing.T) {
		t.Parallel()
		var got []string
		for f, err := range (store{replay(t, "ls")}).List(t.Context(), "share/godata", "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s %d", f.Path, f.Size))
		}
		if want := []string{"share/godata/file1.txt 4", "share/godata/file2.txt 4", "share/godata/file3.txt 6"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
	t.Run("ls-folders", func(t *testing.T) {
		t.Parallel()
		n := 0
		for f, err := range (store{replay(t, "ls-folders")}).List(t.Context(), "", "") {
			if err != nil || !f.Folder {
				t.Fatal(f, err)
			}
			n++
		}
		if n != 4 {
			t.Errorf("%d folders, want 4", n)
		}
	})
	t.Run("endpoint", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"endpoint", "endpoint-v5"} { // neither has an HTTPS server
			if _, err := replay(t, name).address(t.Context(), at); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v, want ErrUnsupported", name, err)
			}
		}
	})
	t.Run("operations", func(t *testing.T) {
		t.Parallel()
		s := store{replay(t, "mkdir", "rename", "submission-id", "delete", "task-queued", "task-active", "task-succeeded")}
		if err := s.operate(t.Context(), replayed, "mkdir", map[string]string{}, "mkdir_result"); err != nil {
			t.Error(err)
		}
		if err := s.rename(t.Context(), at, at); err != nil {
			t.Error(err)
		}
		task, err := s.submitDelete(t.Context(), at)
		if err == nil {
			err = s.await(t.Context(), task)
		}
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("task-failed", func(t *testing.T) {
		t.Parallel()
		if err := replayTask(t, "task-failed"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v, want ErrNotExist", err)
		}
	})
	for name, want := range map[string]struct {
		sentinel error
		text     string
	}{
		"stat-not-found":    {fs.ErrNotExist, "No such file or directory"},
		"stat-denied":       {fs.ErrPermission, "EndpointPermissionDenied"},
		"consent-required":  {backends.ErrUnauthorized, `sreg remote set conformance data_access=00000000-0000-0000-0000-000000000001`},
		"policy-failed":     {backends.ErrUnauthorized, "as the policy wants it 5a9e5b3c-0000-4000-8000-000000000001 or"},
		"login-failed":      {backends.ErrUnauthorized, "with an identity of uchicago.edu"},
		"not-authenticated": {backends.ErrUnauthorized, "sreg login"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var err error
			if strings.HasPrefix(name, "stat") {
				_, err = replay(t, name).stat(t.Context(), at)
			} else {
				_, err = replay(t, name, name).ls(t.Context(), at, "", 1, 0, func(fileDocument) bool { return true })
			}
			if !errors.Is(err, want.sentinel) || !strings.Contains(err.Error(), want.text) {
				t.Errorf("%v, want %v with %q", err, want.sentinel, want.text)
			}
		})
	}
}

// replayTask waits for a task that ends like that.
func replayTask(t *testing.T, name string) error {
	t.Helper()
	return replay(t, name).await(t.Context(), "6b0aed60-575c-11eb-87bb-02187389bd35")
}
