// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/inspect"
)

func (a *app) verifyCmd() *cobra.Command {
	var keys keySource
	cmd := &cobra.Command{
		Use:   "verify URI|PATH",
		Short: "Verify the signatures of an image",
		Long: `Verify that an image is as it was signed, by somebody whose key is at hand. All of
it is read, and fetched into the cache if it is not here.

Keys come from the keyrings of Apptainer and Singularity, and with --keyserver from
there: such a key says who has signed, not that it is somebody you know.

The exit code is 0 if every object is signed by a known key, 6 if something is not as
it was signed, and 1 if the image or a part of it is not signed, or the key is missing.

With -o json: {uri, path, verified, reason, kind, signatures}.`,
		Example: "  sreg verify lab://vsoch/hello:2.0\n  sreg verify --keyring author.asc ./hello.sif",
		Args:    needArgs(1, 1),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := a.verify(cmd.Context(), args[0], keys)
			if err != nil {
				return err
			}
			if err := a.printVerification(in); err != nil {
				return err
			}
			return verdict(in)
		},
	}
	keys.flags(cmd.Flags())
	return cmd
}

func (a *app) verifyImage(ctx context.Context, uri string, keys inspect.Keys) (in control.Inspection, err error) {
	progress, done := a.bar(uri)
	defer done()
	err = a.with(ctx, func(c *control.Client) error {
		in, err = c.Verify(ctx, uri, keys, progress)
		return err
	})
	return in, err
}

// verdict is the error of an image that is not verified, with what to do.
func verdict(in inspection) error {
	err := in.Facts.Verification.Err()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("verify %s: %w", cmp.Or(in.Record.URI, in.Record.Path), err)
	if errors.Is(err, inspect.ErrUnknownKey) {
		for _, s := range in.Facts.Signatures {
			if s.Fingerprint != "" && s.Key == "" {
				return fmt.Errorf("%w (get it with \"apptainer key pull %s\", from a file with --keyring FILE, or with --keyserver https://keys.openpgp.org)",
					err, s.Fingerprint)
			}
		}
	}
	return err
}

func (a *app) printVerification(in inspection) error {
	f := in.Facts
	if a.format == asJSON {
		return a.printJSON(struct {
			URI  string `json:"uri,omitempty"`
			Path string `json:"path,omitempty"`
			*inspect.Verification
			Signatures []inspect.Signature `json:"signatures,omitempty"`
		}{in.Record.URI, in.Record.Path, f.Verification, f.Signatures})
	}
	for _, s := range f.Signatures {
		if _, err := fmt.Fprintln(a.out, backends.Printable(signatureText(s, f.Verification))); err != nil {
			return err
		}
	}
	return nil
}

// signatureText says of one signature who made it, and what it is worth. v is nil if nobody
// has verified it.
func signatureText(s inspect.Signature, v *inspect.Verification) string {
	what := fmt.Sprintf("%s of objects %v", cmp.Or(s.Fingerprint, "a key that is not OpenPGP's"), s.Objects)
	switch {
	case v == nil:
		return what + ", not verified"
	case !s.Verified:
		return what + ", NOT verified: " + cmp.Or(s.Reason, v.Reason)
	}
	if s.Signer != "" {
		what += ", by " + s.Signer
	}
	if s.Key != "" {
		what += ", with the key from " + s.Key
	}
	return what + ", verified"
}
