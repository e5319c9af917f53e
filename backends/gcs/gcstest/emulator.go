// SPDX-License-Identifier: Apache-2.0

package gcstest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
)

// An Emulator is fake-gcs-server (https://github.com/fsouza/fake-gcs-server), which others have
// written for their clients. It wants no login, and takes more than Google does.
type Emulator struct {
	URL string

	http    *http.Client
	buckets atomic.Int64
}

// StartEmulator starts one on 127.0.0.1, which ends with the test. Where it is not installed the
// test is skipped, or fails if SREGFS_NOSKIP=1.
func StartEmulator(tb testing.TB) *Emulator {
	tb.Helper()
	if _, err := exec.LookPath("fake-gcs-server"); err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			tb.Fatal("fake-gcs-server is not installed and SREGFS_NOSKIP=1 allows no skip")
		}
		tb.Skip("fake-gcs-server is not installed")
	}
	// It takes no port 0.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	host := l.Addr().String()
	_ = l.Close()
	cmd := exec.Command("fake-gcs-server", "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory",
		"-external-url", "http://"+host, "-public-host", host, "-log-level", "error", "-data", tb.TempDir())
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // tells of the kill alone
	})
	transport := &http.Transport{}
	tb.Cleanup(transport.CloseIdleConnections)
	e := &Emulator{URL: "http://" + host, http: &http.Client{Transport: transport}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		resp, err := e.http.Get(e.URL + "/storage/v1/b?project=p")
		if err == nil {
			resp.Body.Close()
			return e
		}
		if time.Now().After(deadline) {
			tb.Fatalf("fake-gcs-server does not start: %v\n%s", err, &output)
		}
	}
}

// Bucket makes a bucket and returns its name.
func (e *Emulator) Bucket(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("bucket-%d", e.buckets.Add(1))
	text, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		tb.Fatal(err)
	}
	e.post(tb, "/storage/v1/b?project=p", "application/json", text)
	return name
}

// Put puts an object into a bucket.
func (e *Emulator) Put(tb testing.TB, bucket, name string, content []byte, metadata map[string]string) {
	tb.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	about, err := json.Marshal(map[string]any{"name": name, "metadata": metadata, "contentType": "application/octet-stream"})
	if err != nil {
		tb.Fatal(err)
	}
	for _, part := range []struct {
		mediaType string
		text      []byte
	}{{"application/json", about}, {"application/octet-stream", content}} {
		p, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {part.mediaType}}) // a buffer takes all
		_, _ = p.Write(part.text)
	}
	_ = w.Close()
	e.post(tb, "/upload/storage/v1/b/"+bucket+"/o?uploadType=multipart", "multipart/related; boundary="+w.Boundary(), body.Bytes())
}

func (e *Emulator) post(tb testing.TB, path, mediaType string, body []byte) {
	tb.Helper()
	resp, err := e.http.Post(e.URL+path, mediaType, bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatalf("POST %s: %s %s %v", path, resp.Status, text, err)
	}
}
