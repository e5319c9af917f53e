// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

func TestCheckLogin(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{})
	check := func(token string) error {
		b, err := Open(t.Context(), backends.Env{Remote: "lab", HTTP: &http.Client{},
			User: sregistrytest.User, Secret: func(context.Context, bool) (string, error) { return token, nil },
			Config: map[string]any{"url": srv.URL}})
		if err != nil {
			t.Fatal(err)
		}
		return b.(interface{ CheckLogin(context.Context) error }).CheckLogin(t.Context())
	}
	if err := check(sregistrytest.Token); err != nil {
		t.Errorf("CheckLogin = %v", err)
	}
	if err := check("another"); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("CheckLogin with a wrong token = %v, want %v", err, backends.ErrUnauthorized)
	}
}
