// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// The address comes from the browser of this machine, or from the user.
func TestSentTo(t *testing.T) {
	t.Parallel()
	back := &browserListener{sent: make(chan string, 1)}
	address, err := back.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer back.close()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) int {
		resp, err := hc.Get(address + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if status := get("/favicon.ico"); status != http.StatusNotFound {
		t.Errorf("an icon: HTTP %d", status)
	}
	never, end := io.Pipe()
	defer end.Close()
	if status := get("/?state=s&code=c"); status != http.StatusOK {
		t.Errorf("HTTP %d", status)
	}
	if status := get("/?state=s&code=second"); status != http.StatusOK {
		t.Errorf("again: HTTP %d", status)
	}
	sent, err := (&app{in: never, err: io.Discard}).sentTo(t.Context(), back)
	if err != nil || sent != address+"/?state=s&code=c" {
		t.Errorf("from the browser: %q, %v", sent, err)
	}
	pasted := "http://127.0.0.1:1/?state=s&code=p"
	sent, err = (&app{in: strings.NewReader(pasted + "\n"), err: io.Discard}).sentTo(t.Context(), back)
	if err != nil || sent != pasted {
		t.Errorf("pasted: %q, %v", sent, err)
	}
}
