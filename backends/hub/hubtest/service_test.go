// SPDX-License-Identifier: Apache-2.0

package hubtest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends/hub/hubtest"
)

// The answers in testdata are those of _service_/serve.py itself, of con/shub at
// 743276a9, run on the images.json beside them: fourteen repositories of the
// archive, with their records as _tools_/process_dump.py writes them. Each file
// and each md5 and size in them is in the tree of con/shub as a key of git-annex.
func TestService_recorded(t *testing.T) {
	t.Parallel()
	index, err := os.ReadFile("../testdata/images.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../testdata/answers.json")
	if err != nil {
		t.Fatal(err)
	}
	var answers []struct {
		Path     string
		Status   int
		Body     map[string]any
		Location string
	}
	if err := json.Unmarshal(text, &answers); err != nil || len(answers) < 40 {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	service := hubtest.NewService(index, hubtest.ArchiveURL)
	for _, want := range answers {
		w := httptest.NewRecorder()
		service.ServeHTTP(w, httptest.NewRequest(http.MethodGet, want.Path, nil))
		var body map[string]any
		if want.Body != nil {
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Errorf("%s: %v", want.Path, err)
			}
		}
		if diff := cmp.Diff(want.Body, body); w.Code != want.Status || w.Header().Get("Location") != want.Location || diff != "" {
			t.Errorf("%s: status %d to %q, want %d to %q; body (-want +got):\n%s",
				want.Path, w.Code, w.Header().Get("Location"), want.Status, want.Location, diff)
		}
	}
}
