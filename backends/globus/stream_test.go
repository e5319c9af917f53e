// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"errors"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// Whatever comes as a listing is one, or an error that says so.
func FuzzReadListing(f *testing.F) {
	for _, text := range []string{
		`{"DATA": [{"DATA_TYPE": "file", "name": "a", "type": "file", "size": 1, "last_modified": "2020-09-23 18:53:12+00:00"}], "DATA_TYPE": "file_list", "total": 1}`,
		`{"DATA_TYPE": "file_list", "total": null, "absolute_path": null, "DATA": []}`,
		`{"DATA": null}`, `{"DATA": [null]}`, `{"DATA": [{"DATA_TYPE": "file"}]`, `[]`, `<html>`, ``, `{"DATA": [], "DATA_TYPE": "endpoint"}`, `{"DATA": [], "DATA": [1]}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		list, err := readListing(strings.NewReader(text), func(d fileDocument) bool {
			n++
			_, _, _ = d.file("x")
			return true
		})
		if err != nil && !errors.Is(err, backends.ErrBadAnswer) && !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("%q: %v, want ErrBadAnswer or ErrUnavailable", text, err)
		}
		if err == nil && list.n != n {
			t.Errorf("%q: %d of %d documents", text, n, list.n)
		}
	})
}

// So is what GridFTP says of an error.
func FuzzGridError(f *testing.F) {
	for _, text := range []string{
		gridCode + "PATH_NOT_FOUND\nGridFTP-Errno: 2", "550-" + gridCode + `PERMISSION_DENIED\r\n`, gridCode, "nothing", gridCode + "X" + gridResult + `{"authorization_parameters": {"session_required_mfa": true}}`,
		gridResult + "{", gridResult + `{"authorization_parameters": 1}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := gridError(text); (err != nil) != strings.Contains(text, gridCode) {
			t.Errorf("%q: %v", text, err)
		}
		_ = gridSession(text)
	})
}
