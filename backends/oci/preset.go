// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// A preset is what one type of remote knows of its service beforehand.
type preset struct {
	url  string   // where the service is; "" if there are many of them
	api  string   // where its own API is, if url is not changed
	keys []string // the settings that it takes beside those of "oci"

	needs       string // as in backends.Type, and so the next three
	loginAdvice string
	hosts       []string // if there are more than that of url
	ownHost     func(string) bool
	hostSchemes []string

	// lister makes what reads the repositories from the API; nil goes by the
	// registry's catalogue.
	lister      func(a *api) lister
	here        bool // the API is on the registry's own host
	deep        bool // a namespace can have several parts
	whole       bool // the API tells the repositories of all namespaces at once
	withoutList bool // nobody tells the repositories

	containers bool  // most images are no SIFs
	secretive  bool  // what is not there is refused as what is not for everybody
	counted    bool  // each manifest counts against a quota: listings look at none
	chunk      int64 // bytes of one request of an upload, if it takes less than is usual

	user  string                   // that goes with a token of no user name; "" is "token"
	owner func(user string) string // whose namespace the logged-in user has; nil: none goes with a login

	denied string // what a "403 forbidden" can mean besides; a HEAD has no message
	helper string // the credential helper to run where no login is configured
	// names is what the service takes as a repository beside the grammar of OCI, and
	// in words; nil: all of that.
	names     *regexp.Regexp
	namesSaid string
	// missing says what to do before a push to a repository that is not there;
	// nil where a push makes it.
	missing func(cfg Config, repo string) string
}

// presets are the types of remote that Open opens. Nobody changes the map.
var presets = map[string]preset{
	"oci": {keys: []string{"auth", "layout"}, needs: "url", hostSchemes: []string{"docker", "oras"}},
	"docker": {
		url: "https://" + dockerHub, hosts: []string{"docker.io", "index.docker.io", dockerHub, "registry.hub.docker.com"}, api: "https://hub.docker.com", keys: []string{"api", "namespaces"},
		lister: newHubLister, owner: strings.ToLower, containers: true, counted: true, secretive: true,
	},
	"ghcr": {
		url: "https://ghcr.io", api: "https://api.github.com", keys: []string{"api", "namespaces"},
		lister: newGitHubLister, owner: strings.ToLower, chunk: 4 << 20, secretive: true,
	},
	"quay": {
		url: "https://quay.io", here: true, keys: []string{"api", "namespaces"},
		lister: newQuayLister, owner: quayOwner, user: quayOAuth, containers: true, secretive: true,
	},
	"gitlab": {
		url: "https://registry.gitlab.com", api: "https://gitlab.com/api/v4", keys: []string{"api", "namespaces"},
		lister: newGitLabLister, deep: true,
	},
	"harbor": {
		here: true, needs: "url", keys: []string{"api", "namespaces"},
		lister: newHarborLister, whole: true,
	},
	// docs.nvidia.com/ngc: the API key is the password of this user. The
	// catalogue of NGC is a web application of its own.
	"nvidia": {
		url: "https://nvcr.io", user: "$oauthtoken", withoutList: true, containers: true,
	},
	// docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html: a
	// token is good for twelve hours, then its answer is "403 denied".
	"aws": {
		keys: []string{"account", "region"}, ownHost: ecrHost.MatchString, user: "AWS", helper: "ecr-login", missing: ecrMissing,
		names: ecrName, namesSaid: "a repository of ECR has 2 to 256 characters, lower-case letters and digits with single \".\", \"_\" or \"-\" between them, and begins with a letter",
		denied:      "or the token has expired: it is good for twelve hours",
		loginAdvice: `log in to AWS ("aws configure", "aws sso login"): docker-credential-ecr-login takes that login`,
	},
}

// Types returns what Open opens, for the table of backends/all.
func Types() []backends.Type {
	all := make([]backends.Type, 0, len(presets))
	for name, p := range presets {
		t := backends.Type{
			Name: name, Open: Open, OCI: true, Needs: p.needs, LoginAdvice: p.loginAdvice, Hosts: p.hosts, OwnHost: p.ownHost, HostSchemes: p.hostSchemes,
			Namespaces: slices.Contains(p.keys, "namespaces") && !p.whole,
		}
		if host := strings.TrimPrefix(p.url, "https://"); t.Hosts == nil && host != "" {
			t.Hosts = []string{host}
		}
		if t.Needs == "" { // there is one service
			t.Schemes = []string{name}
		}
		all = append(all, t)
	}
	return all
}

// A silent is a client of a service that tells no repositories: it is no
// backends.Lister, so that nobody waits for a listing.
type withoutList struct {
	backends.Backend
	backends.Pusher
	backends.Deleter
	backends.Mover
	backends.Copier
	backends.Tagger
	backends.Untagger
	backends.VersionLister
	backends.NameChecker
	backends.Layered
	backends.ArchiveLister
	backends.Knocker
	backends.LoginChecker
	backends.Limited
	backends.Addressed
}

// decode reads the configuration of a remote. Errors: fs.ErrInvalid.
func (p preset) decode(env backends.Env) (Config, error) {
	known := append([]string{"url", "namespace", "credentials", "auth_host", "show"}, p.keys...)
	for _, key := range slices.Sorted(maps.Keys(env.Config)) {
		if !slices.Contains(known, key) {
			return Config{}, &backends.SettingError{Key: key, Err: fmt.Errorf("%w: remote %s has no setting %q for type %q%s",
				fs.ErrInvalid, env.Remote, key, env.Type, backends.DidYouMean(key, known))}
		}
	}
	// An account is twelve digits, which a command line and TOML take for a
	// number without the zeros that it may begin with.
	if n, ok := env.Config["account"].(int64); ok {
		env.Config = maps.Clone(env.Config)
		env.Config["account"] = fmt.Sprintf("%012d", n)
	}
	var cfg Config
	if err := env.Decode(&cfg); err != nil {
		return Config{}, err
	}
	if cfg.URL == "" && (cfg.Account != "" || cfg.Region != "") {
		var err error
		if cfg.URL, err = ecrURL(cfg.Account, cfg.Region); err != nil {
			return Config{}, fmt.Errorf("remote %s: %w", env.Remote, err)
		}
	}
	if cfg.API == "" && p.url != "" && (cfg.URL == "" || sameRegistry(cfg.URL, p.url)) {
		cfg.API = p.api
	}
	if cfg.URL == "" && slices.Contains(p.keys, "account") {
		return Config{}, fmt.Errorf("%w: remote %s: account and region are required (account = \"123456789012\", region = \"eu-central-1\"), or url",
			fs.ErrInvalid, env.Remote)
	}
	cfg.URL = cmp.Or(cfg.URL, p.url)
	for i, ns := range cfg.Namespaces {
		ns = strings.Trim(ns, "/")
		if err := checkRepository(ns); err != nil {
			return Config{}, fmt.Errorf("remote %s: namespaces: %w", env.Remote, err)
		}
		cfg.Namespaces[i] = ns
	}
	return cfg, nil
}

// sameRegistry reports whether two addresses mean one registry.
func sameRegistry(a, b string) bool {
	at, err1 := parseURL(a)
	bt, err2 := parseURL(b)
	return err1 == nil && err2 == nil && sameOrigin(at, bt)
}

// newLister returns what lists the repositories by the service's API; nil if
// the registry's catalogue does. The login is for the registry: it goes to the API
// of a service that is known, or of one that the configuration names, and to no
// other; a registry of one's own under a known type does not get it sent there.
func (c *client) newLister(env backends.Env, cfg Config) (lister, error) {
	if c.preset.lister == nil {
		return nil, nil
	}
	at := cfg.API
	if at == "" && c.preset.here {
		at = c.base.String()
	}
	if at == "" {
		return nil, nil
	}
	base, err := httpx.Address(at)
	if err != nil {
		return nil, fmt.Errorf("remote %s: api: %w", env.Remote, err)
	}
	return c.preset.lister(&api{base: base, http: apiClient(env.HTTP, base), login: c.login, limits: &c.limits}), nil
}

var (
	ecrAccount = regexp.MustCompile(`^[0-9]{12}$`)
	// docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreateRepository.html
	ecrName   = regexp.MustCompile(`^[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*(?:/[a-z0-9]+(?:[._-][a-z0-9]+)*)*$`)
	ecrRegion = regexp.MustCompile(`^[a-z]{2}(?:-[a-z0-9]+){2,3}$`)
	ecrHost   = regexp.MustCompile(`^[0-9]{12}\.dkr\.ecr(?:-fips)?\.[a-z]{2}(?:-[a-z0-9]+){2,3}\.amazonaws\.com(?:\.cn)?$`)
)

// ecrURL returns the address of an account's registry
// (docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html).
func ecrURL(account, region string) (string, error) {
	if !ecrAccount.MatchString(account) || !ecrRegion.MatchString(region) {
		return "", fmt.Errorf("%w: account %q in region %q (want twelve digits, and a name as \"eu-central-1\")", fs.ErrInvalid, account, region)
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		domain = "amazonaws.com.cn"
	}
	return "https://" + account + ".dkr.ecr." + region + "." + domain, nil
}

// ecrMissing says how to make a repository: ECR does not make it by a push
// (docs.aws.amazon.com/AmazonECR/latest/userguide/docker-push-ecr-image.html).
func ecrMissing(cfg Config, repo string) string {
	command := "aws ecr create-repository --repository-name " + repo
	if region := cfg.Region; region != "" {
		command += " --region " + region
	}
	return "make the repository first: " + command
}

// notThere adds to an error of a push what to do if it is the repository that
// is not there.
func (c *client) notThere(err error, repo string) error {
	if c.preset.missing == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%w (%s)", err, c.preset.missing(c.config, repo))
}
