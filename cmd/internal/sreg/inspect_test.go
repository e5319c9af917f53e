// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// What "sreg inspect -o json" prints is what the schema says, for each kind of image, and has
// every field that "sregistry inspect" printed.
func TestInspect_schema(t *testing.T) {
	t.Parallel()
	schema, err := jsonschema.NewCompiler().Compile("../../../docs/inspect.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	registry := ocitest.Start(t, ocitest.Options{})
	registry.PushImage("tools/greeting", "1.0", ocitest.NewImage(t, true))
	lab := "--remote=lab=oci,url=" + registry.URL
	const images = "../../../catalog/inspect/testdata/"
	run(t, home, "", "add", images+"greet-signed.sif", "vsoch/hello:1")
	text := filepath.Join(home, "text")
	if err := os.WriteFile(text, []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"vsoch/hello:1", images + "greet-signed.sif", images + "greet.simg", images + "small-lzo.simg", text,
		"lab://tools/greeting:1.0", "lab://tools/greeting:1.0.oci.tar", "--verify --keyring=" + images + "greet-signer.asc vsoch/hello:1"} {
		out := run(t, home, "", append([]string{lab, "inspect", "-o", "json"}, strings.Fields(what)...)...)
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(out), &fields); err != nil {
			t.Fatal(err)
		}
		for _, old := range strings.Fields("client collection collection_id created_at id image metrics name tag uri url version") {
			if _, ok := fields[old]; !ok {
				t.Errorf("%s: the field %q of sregistry is missing", what, old)
			}
		}
	}
}
