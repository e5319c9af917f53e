// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/oci/presettest"
)

const servicePassword = "hunter2"

// A service is what a remote of one of the types of registries has to do with.
type service struct {
	hub *presettest.HubLimits
	ngc *presettest.NGC
	ecr *presettest.ECR
	api *presettest.Service
}

// startService starts the registry, its API and its login, as the type has them.
func (s *script) startService(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: service TYPE")
	}
	user := map[string]string{"quay": "$oauthtoken", "nvidia": "$oauthtoken", "harbor": "robot$ci", "aws": "AWS"}[args[0]]
	if user == "" {
		user = "me"
	}
	opts := ocitest.Options{Delete: true, User: user, Password: servicePassword}
	s.service = service{}
	switch args[0] {
	case "docker":
		opts.TokenAuth, opts.AnonymousPull = true, true
	case "nvidia", "aws":
		opts.User = ""
	}
	s.registry = ocitest.Start(s.t, opts)
	switch args[0] {
	case "docker":
		s.service.hub = &presettest.HubLimits{Of: 100, Source: "203.0.113.7"}
		s.registry.Use(s.service.hub.Before)
	case "nvidia":
		s.service.ngc = presettest.StartNGC(s.t, servicePassword)
		s.registry.Use(s.service.ngc.Before)
	case "aws":
		s.service.ecr = new(presettest.ECR)
		s.registry.Use(s.service.ecr.Before)
		s.startHelper(ts)
	}
	if presettest.Specs[args[0]] != nil {
		s.service.api = presettest.Start(s.t, args[0], presettest.Options{
			Repositories: s.registry.Repositories,
			Empty:        func() []string { return []string{"team", "me"} }, Users: []string{"me"},
			User: user, Password: servicePassword,
		})
		ts.Setenv("API", s.service.api.URL)
	}
	ts.Setenv("REGISTRY", s.registry.URL)
	ts.Setenv("SERVICE_USER", user)
}

// startHelper puts a credential helper of the name of Amazon's into $PATH; it
// says what is in $WORK/token, or that there is nothing.
func (s *script) startHelper(ts *testscript.TestScript) {
	dir := ts.MkAbs("bin")
	ts.Check(os.MkdirAll(dir, 0o700))
	text := "#!/bin/sh\nread -r server\ntoken=$(cat " + ts.MkAbs("token") + ") || { echo no AWS credentials found; exit 1; }\n" +
		"printf '{\"ServerURL\":\"%s\",\"Username\":\"AWS\",\"Secret\":\"%s\"}' \"$server\" \"$token\"\n"
	ts.Check(os.WriteFile(filepath.Join(dir, "docker-credential-ecr-login"), []byte(text), 0o700)) //nolint:gosec // it is to be run
	ts.Setenv("PATH", dir+string(os.PathListSeparator)+ts.Getenv("PATH"))
	s.renewToken(ts, false, nil)
}

// renewToken makes the token that the helper has another one; those before are
// expired. With an argument the helper does not learn of it.
func (s *script) renewToken(ts *testscript.TestScript, _ bool, args []string) {
	token := s.service.ecr.Issue()
	if len(args) == 0 {
		ts.Check(os.WriteFile(ts.MkAbs("token"), []byte(token), 0o600))
	}
}

// limitService lets the service allow so many pulls more, or requests to its
// API.
func (s *script) limitService(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	if s.service.hub != nil {
		s.service.hub.Use(s.service.hub.Of - n)
		return
	}
	s.service.api.Limit(n, time.Now().Add(time.Hour))
}

// expireService makes the tokens worthless that were given out for a login.
func (s *script) expireService(*testscript.TestScript, bool, []string) {
	if s.service.ngc != nil {
		s.service.ngc.Expire()
		return
	}
	s.service.api.ExpireTokens()
}
