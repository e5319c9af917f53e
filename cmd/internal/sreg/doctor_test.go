// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/doctor"
)

func TestCheckClock(t *testing.T) {
	t.Parallel()
	remotes := []config.Remote{{Name: "a"}, {Name: "b"}}
	for _, tt := range []struct {
		skews  []time.Duration
		result doctor.Result
		text   string
	}{
		{[]time.Duration{0, 0}, doctor.OK, "no registry"},
		{[]time.Duration{0, time.Second}, doctor.OK, "of b"},
		{[]time.Duration{-3 * time.Second, time.Hour}, doctor.OK, "within 3s of that of a"},
		{[]time.Duration{-time.Minute, time.Hour}, doctor.Warn, "a by -1m0s"},
		{[]time.Duration{2 * time.Hour, time.Hour}, doctor.Fail, "b by 1h0m0s"},
	} {
		f := checkClock(remotes, tt.skews)
		if f.Result != tt.result || !strings.Contains(f.Detail, tt.text) || (f.Result == doctor.OK) != (f.Remedy == "") {
			t.Errorf("%v: %+v, want %s %q", tt.skews, f, tt.result, tt.text)
		}
	}
}

// What goes wrong on the way to a registry has a remedy of its own.
func TestCheckRegistry(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
	}))
	defer plain.Close()
	for _, tt := range []struct {
		url    string
		env    map[string]string
		result doctor.Result
		text   string
	}{
		{plain.URL, nil, doctor.OK, plain.URL},
		{secure.URL, nil, doctor.Fail, "ca_file"},
		{strings.Replace(plain.URL, "http://", "https://", 1), nil, doctor.Fail, "does not speak TLS"},
		{"http://127.0.0.1:9", nil, doctor.Fail, "the network"},
		{"http://nowhere.invalid", nil, doctor.Fail, "the name is not found"},
	} {
		a := &app{out: io.Discard, err: io.Discard, system: t.TempDir()}
		home := t.TempDir()
		a.getenv = func(name string) string { return map[string]string{"HOME": home, "SREGFS_HOME": home + "/state"}[name] }
		a.root()
		a.remotes = []string{"lab=oci,url=" + tt.url}
		o, err := a.options()
		if err != nil {
			t.Fatal(err)
		}
		r, err := remoteNamed(o, "lab")
		if err != nil {
			t.Fatal(err)
		}
		f, skew := checkRegistry(t.Context(), o, r)
		if f.Result != tt.result || !strings.Contains(f.Detail+": "+f.Remedy, tt.text) {
			t.Errorf("%s: %+v, want %s %q", tt.url, f, tt.result, tt.text)
		}
		if (tt.url == plain.URL) != (skew > 50*time.Minute) {
			t.Errorf("%s: the clock differs by %v", tt.url, skew)
		}
	}
}
