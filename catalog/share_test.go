// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/sregfs/sregfs/catalog/verbs"
)

// Labels are told of what is here, without a request or a download.
func TestLabels(t *testing.T) {
	t.Parallel()
	_, local := withLocal(t)
	svc := newService()
	svc.put("c/x:1", tiny(t, ""))
	b := newBench(t, svc, local)
	if _, err := b.Add(t.Context(), "inspect/testdata/greet-signed.sif", "local://a/greet:1", verbs.AddOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	b.names("c")
	all := func(key, value, remote string) []verbs.Label {
		t.Helper()
		var got []verbs.Label
		for l, err := range b.Labels(t.Context(), verbs.LabelsOptions{Key: key, Value: value, Remote: remote}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, l)
		}
		return got
	}
	labels := all("", "", "")
	if len(labels) == 0 {
		t.Fatal("the image has no labels")
	}
	for _, l := range labels {
		if l.URI != "local://a/greet:1" {
			t.Errorf("%+v", l)
		}
	}
	one := labels[0]
	wantDiff(t, "by key and value", all(one.Key, one.Value, "local"), []verbs.Label{one})
	if got := all(one.Key, "no such value", ""); len(got) != 0 {
		t.Errorf("by another value: %+v", got)
	}
	if got := all("", "", "lab"); len(got) != 0 {
		t.Errorf("of a remote without any: %+v", got)
	}
	if n := svc.count("open"); n != 0 {
		t.Errorf("%d downloads", n)
	}
}

func TestShare(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", tiny(t, ""))
	b := newBench(t, svc)
	_, err := b.Share(t.Context(), "c/x:1", "")
	wantErr(t, "a service that cannot", err, errors.ErrUnsupported)
	_, err = b.Share(t.Context(), "c/nothing:1", "")
	wantErr(t, "what is not there", err, fs.ErrNotExist)
}
