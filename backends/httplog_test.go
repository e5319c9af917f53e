// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The log has each request and its answer, and nothing that lets somebody in.
func TestHTTPClient_log(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://me:canary@store.example/blob?X-Signature=canary")
		w.Header().Set("Set-Cookie", "session=canary")
		w.Header().Set("X-Amz-Security-Token", "canary")
		w.Header().Set("Www-Authenticate", `Bearer realm="https://auth.example/token?key=canary"`)
		w.Header().Set("Etag", `"an-etag"`)
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(srv.Close)
	var log bytes.Buffer
	hc := NewHTTPClient(HTTPOptions{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, strings.Replace(srv.URL, "http://", "http://me:canary@", 1)+"/v2/a?sig=canary", strings.NewReader("canary"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=0-9")
	req.Header.Set("Cookie", "canary")
	req.Header.Set("X-Evil", "\u202ecanary")
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	text := log.String()
	for _, want := range []string{"method=PUT", "/v2/a?…", "status=202", `sent.Range="bytes=0-9"`, "sent.Cookie=…", `answered.Etag="\"an-etag\""`, "store.example/blob?…", "auth.example/token?…"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	if strings.Contains(text, "canary") || t.Failed() {
		t.Errorf("the log is\n%s", text)
	}
}
