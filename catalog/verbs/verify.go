// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// Verify is Inspect, and verifies the signatures with keys. All of a signed image is fetched
// into the cache for that. What came of it is in Facts.Verification.
//
// Errors: those of Inspect, Pull and inspect.Facts.Verify.
func (v *transfers) Verify(ctx context.Context, uri string, keys inspect.Keys, p catalog.Progress) (Inspection, error) {
	var found Inspection
	err := v.withImage(ctx, uri, func(r catalog.Remote, img backends.Image) (err error) {
		if found, err = v.inspect(ctx, r, img, uri); err != nil || found.Facts.Unsigned() {
			return err
		}
		var facts *inspect.Facts
		err = v.fetchWhole(ctx, r, img, p, func(f *os.File) (err error) {
			facts, err = inspect.VerifyFile(ctx, f, keys)
			return err
		})
		if err != nil {
			return err
		}
		found, err = v.inspect(ctx, r, img, uri) // it is here by now
		found.Facts = facts
		return err
	})
	return found, err
}
