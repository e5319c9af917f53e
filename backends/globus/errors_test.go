// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/globus/globustest"
)

// What a collection refuses is told with what helps.
func TestRemedies(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	session := func(params map[string]any) globustest.Refusal {
		return globustest.Refusal{Status: 403, Code: "AuthPolicyFailed", Message: "no", More: map[string]any{"authorization_parameters": params}}
	}
	for name, test := range map[string]struct {
		refusal globustest.Refusal
		config  map[string]any
		is      error
		says    string
	}{
		"not connected":   {globustest.Refusal{Status: 409, Code: "ClientError.Conflict.GCDisconnectedException"}, nil, backends.ErrUnavailable, "start Globus Connect Personal on its computer (ID)"},
		"disconnected":    {globustest.Refusal{Status: 502, Code: "ExternalError.DirListingFailed.GCDisconnected"}, nil, backends.ErrUnavailable, "start Globus Connect Personal on its computer (ID)"},
		"paused":          {globustest.Refusal{Status: 502, Code: "ExternalError.DirListingFailed.GCPaused"}, nil, backends.ErrUnavailable, "let Globus Connect Personal on its computer go on"},
		"paused by rule":  {globustest.Refusal{Status: 409, Code: "OperationPaused"}, nil, backends.ErrUnavailable, "administrator of the collection has paused this"},
		"not activated":   {globustest.Refusal{Status: 400, Code: "ClientError.ActivationRequired"}, nil, fs.ErrPermission, "wants to be activated, at https://app.globus.org"},
		"denied":          {globustest.Refusal{Status: 403, Code: "EndpointPermissionDenied", Message: "Denied by endpoint, Error (list)\nMessage: Fatal FTP Response\n"}, nil, fs.ErrPermission, `"Fatal FTP Response"`},
		"too many":        {globustest.Refusal{Status: 429, Code: "EndpointError"}, nil, backends.ErrRateLimited, ""},
		"no space":        {globustest.Refusal{Status: 502, Code: "EndpointError", Message: `Details: 552-GlobusError: v=1 c=NO_SPACE_LEFT\r\n552 End.`}, nil, syscall.EDQUOT, "NO_SPACE_LEFT"},
		"one machine ill": {globustest.Refusal{Status: 502, Code: "EndpointError", Message: `Details: 500-GlobusError: v=1 c=ENDPOINT_ERROR\r\n`}, nil, backends.ErrUnavailable, "ENDPOINT_ERROR"},
		"embedded session": {globustest.Refusal{
			Status: 502, Code: "ExternalError.DirListingFailed.LoginFailed",
			Message: `Details: 530-GridFTP-JSON-Result: {"DATA_TYPE": "result#1.1.0", "authorization_parameters": {"session_required_single_domain": ["a.org"]}, "code": "permission_denied"}\r\n530 End.\r\n`,
		}, nil, backends.ErrUnauthorized, `session=domain:a.org", then`},
		"unknown code":    {globustest.Refusal{Status: 502, Code: "ExternalError.Strange"}, nil, backends.ErrUnavailable, ""},
		"stale":           {session(map[string]any{"session_message": "too old"}), nil, backends.ErrUnauthorized, `too old ("too old"): run "sreg login conformance"`},
		"identities":      {session(map[string]any{"session_required_identities": []string{"me@a.org"}}), nil, backends.ErrUnauthorized, `as me@a.org: run "sreg remote set conformance session=identities:me@a.org", then "sreg login conformance"`},
		"domain and mfa":  {session(map[string]any{"session_required_single_domain": "a.org,b.org", "session_required_mfa": true}), nil, backends.ErrUnauthorized, `session=domain:a.org+b.org,mfa", then`},
		"policies":        {session(map[string]any{"session_required_policies": []string{"p"}}), nil, backends.ErrUnauthorized, `session=policies:p", then "sreg login conformance"`},
		"policies, known": {session(map[string]any{"session_required_policies": "p"}), map[string]any{"session": "policies:p"}, backends.ErrUnauthorized, `as the policy wants it p: run "sreg login conformance"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := srv.Add(globustest.Collection{})
			config := map[string]any{"endpoint": id}
			for key, value := range test.config {
				config[key] = value
			}
			c := openAs(t, srv, nil, config, "", personal(srv))
			srv.Refuse(id, &test.refusal)
			_, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: "c", Name: "a", Tag: "1"})
			if says := strings.ReplaceAll(test.says, "ID", id); !errors.Is(err, test.is) || !strings.Contains(err.Error(), says) {
				t.Errorf("%v, want %v with %q", err, test.is, says)
			}
			for range c.List(t.Context(), "") { // and does not look like an empty collection
				continue
			}
		})
	}
}

// Consent that is missing is named with the settings that get it; an app needs no login for it.
func TestConsent(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	id, before := srv.Add(globustest.Collection{DataAccess: true}), srv.Add(globustest.Collection{DataAccess: true})
	srv.Put(id, "/c/a:1.sif", []byte("abc"), time.Now())
	config := map[string]any{"endpoint": id, "data_access": before}
	ref := backends.Ref{Collection: "c", Name: "a", Tag: "1"}
	want := `run "sreg remote set conformance data_access=` + before + "," + id + `"`
	_, err := openAs(t, srv, nil, config, "", personal(srv)).Reader.Stat(t.Context(), ref)
	if !errors.Is(err, backends.ErrUnauthorized) || !strings.HasSuffix(err.Error(), want+`, then "sreg login conformance"`) {
		t.Errorf("a person: %v, want %s", err, want)
	}
	_, err = open(t, srv, nil, config, secret).Reader.Stat(t.Context(), ref)
	if !errors.Is(err, backends.ErrUnauthorized) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("an app: %v, want %s", err, want)
	}
	config["data_access"] = id
	c := open(t, srv, nil, config, secret)
	img, err := c.Reader.Stat(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	body, err := c.Reader.Open(t.Context(), img, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
}

func TestOpen_settings(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	for _, config := range []map[string]any{
		{"endpoint": "lab"}, {"data_access": "x"}, {"root": "a/../b"}, {"session": "mfa,what:x"}, {"session": "domain:"}, {"url": "http://x/folder"},
	} {
		if config["url"] == nil {
			config["url"] = srv.URL
		}
		_, err := Open(t.Context(), envOf(config))
		if !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%v: %v, want ErrInvalid", config, err)
		}
	}
}

// A machine of an HTTPS server that is ill says of every file that it is not there: that is
// tried again, and does not make a file vanish.
func TestOpen_illServer(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	id := srv.Add(globustest.Collection{})
	srv.Put(id, "/c/a:1.sif", []byte("abc"), time.Now())
	c := open(t, srv, nil, map[string]any{"endpoint": id}, secret)
	ref := backends.Ref{Collection: "c", Name: "a", Tag: "1"}
	img, err := c.Reader.Stat(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	srv.Fail(id, 1)
	if _, err := c.Reader.Open(t.Context(), img, 0, -1); !errors.Is(err, backends.ErrUnavailable) || !strings.Contains(err.Error(), "INTERNAL_ERROR") {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	client := backends.NewClient("lab", c, backends.ClientOptions{})
	defer client.Close()
	srv.Fail(id, 1)
	body, err := client.Open(t.Context(), img, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if text, err := io.ReadAll(body); err != nil || string(text) != "abc" {
		t.Errorf("%q, %v", text, err)
	}
	srv.Fail(id, 1)
	if _, err := c.Push(t.Context(), backends.Ref{Collection: "c", Name: "b", Tag: "1"}, backendtest.Source([]byte("abc"))); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("push: %v, want ErrUnavailable", err)
	}
}
