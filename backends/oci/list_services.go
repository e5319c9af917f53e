// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A githubLister asks GitHub (docs.github.com/en/rest/packages/packages, "List
// packages for an organization" and "… for a user"). Nothing is told without a
// login: the token needs the scope read:packages.
type githubLister struct{ *api }

func newGitHubLister(a *api) lister {
	a.sign = func(ctx context.Context, req *http.Request) error {
		cred, err := a.credential(ctx)
		if err == nil && cred.Password == "" {
			err = fmt.Errorf("%w: GitHub tells no packages without a login", errors.ErrUnsupported)
		}
		req.Header.Set("Authorization", "Bearer "+cred.Password)
		req.Header.Set("Accept", "application/vnd.github+json")
		return err
	}
	return githubLister{a}
}

func (l githubLister) start(namespace string) []string {
	var all []string
	for _, kind := range []string{"orgs", "users"} {
		all = append(all, l.path(kind, namespace, "packages")+"?package_type=container&per_page="+apiPage)
	}
	return all
}

func (l githubLister) page(ctx context.Context, namespace, target string) ([]string, string, error) {
	var page []struct {
		Name string `json:"name"`
	}
	header, err := l.get(ctx, target, &page)
	if err != nil {
		return nil, "", err
	}
	var repos []string
	for _, p := range page {
		repos = append(repos, namespace+"/"+p.Name)
	}
	next, err := l.onward(target, nextLink(header.Values("Link")))
	return repos, next, err
}

// quayOAuth is the user whose password at Quay is an OAuth token; those of
// robots and of applications are for the registry alone
// (docs.quay.io/glossary/access-token.html, docs.quay.io/api).
const quayOAuth = "$oauthtoken"

// quayOwner returns the namespace of a user or a robot ("team+robot").
func quayOwner(user string) string {
	name, _, _ := strings.Cut(user, "+")
	if strings.HasPrefix(name, "$") {
		return ""
	}
	return strings.ToLower(name)
}

// A quayLister asks Quay (docs.quay.io/api/swagger, "listRepos"): for what is
// public, and with an OAuth token also for what it can read.
type quayLister struct{ *api }

func newQuayLister(a *api) lister {
	a.sign = func(ctx context.Context, req *http.Request) error {
		cred, err := a.credential(ctx)
		if err == nil && cred.Username == quayOAuth {
			req.Header.Set("Authorization", "Bearer "+cred.Password)
		}
		return err
	}
	return quayLister{a}
}

func (l quayLister) start(namespace string) []string {
	return []string{withQuery(l.path("api", "v1", "repository")+"?public=true", "namespace", namespace)}
}

func (l quayLister) page(ctx context.Context, _, target string) ([]string, string, error) {
	var page struct {
		Repositories list[struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
			Kind      string `json:"kind"` // "image", "application"
		}] `json:"repositories"`
		Next string `json:"next_page"` // missing on the last one
	}
	if _, err := l.get(ctx, target, &page); err != nil {
		return nil, "", err
	}
	if err := page.Repositories.check("repositories"); err != nil {
		return nil, "", err
	}
	var repos []string
	for _, r := range page.Repositories.all {
		if r.Kind == "" || r.Kind == "image" {
			repos = append(repos, r.Namespace+"/"+r.Name)
		}
	}
	if page.Next == "" {
		return repos, "", nil
	}
	return repos, withQuery(target, "next_page", page.Next), nil
}

// A gitlabLister asks GitLab (docs.gitlab.com/api/container_registry,
// "List registry repositories"; the list of a group includes its subgroups). The tags
// that a project's list can have with it are not asked for: those of a hundred
// repositories can be more than an answer may have, and a group's cannot.
type gitlabLister struct{ *api }

func newGitLabLister(a *api) lister {
	a.sign = func(ctx context.Context, req *http.Request) error {
		cred, err := a.credential(ctx)
		switch {
		case err != nil || cred.Password == "":
			return err
		case cred.Username == "gitlab-ci-token":
			req.Header.Set("Job-Token", cred.Password)
		default:
			req.Header.Set("Private-Token", cred.Password)
		}
		return nil
	}
	return gitlabLister{a}
}

func (l gitlabLister) start(namespace string) []string {
	var all []string
	for _, kind := range []string{"groups", "projects"} {
		if kind == "groups" || strings.Contains(namespace, "/") {
			all = append(all, l.path(kind, namespace, "registry", "repositories")+"?per_page="+apiPage)
		}
	}
	return all
}

func (l gitlabLister) page(ctx context.Context, _, target string) ([]string, string, error) {
	var page []struct {
		Path   string `json:"path"`
		Status string `json:"status"` // null, or how far its deletion is
	}
	header, err := l.get(ctx, target, &page)
	if err != nil {
		return nil, "", err
	}
	var repos []string
	for _, r := range page {
		if !strings.HasPrefix(r.Status, "delete_") || r.Status == "delete_failed" {
			repos = append(repos, r.Path)
		}
	}
	next := header.Get("X-Next-Page") // empty on the last one
	if next == "" {
		return repos, "", nil
	}
	if _, err := strconv.ParseUint(next, 10, 31); err != nil {
		return nil, "", fmt.Errorf("%w: X-Next-Page %q", backends.ErrBadAnswer, next)
	}
	return repos, withQuery(target, "page", next), nil
}

// A harborLister asks Harbor (github.com/goharbor/harbor, api/v2.0/swagger.yaml,
// "listRepositories" and "listAllRepositories").
type harborLister struct{ *api }

func newHarborLister(a *api) lister {
	a.sign = func(ctx context.Context, req *http.Request) error {
		cred, err := a.credential(ctx)
		if err == nil && cred.Password != "" {
			req.SetBasicAuth(cred.Username, cred.Password)
		}
		return err
	}
	return harborLister{a}
}

func (l harborLister) start(namespace string) []string {
	target := l.path("api", "v2.0", "projects", namespace, "repositories")
	if namespace == "" {
		target = l.path("api", "v2.0", "repositories")
	}
	return []string{target + "?page_size=" + apiPage}
}

func (l harborLister) page(ctx context.Context, _, target string) ([]string, string, error) {
	var page []struct {
		Name string `json:"name"` // with the project
	}
	header, err := l.get(ctx, target, &page)
	if err != nil {
		return nil, "", err
	}
	var repos []string
	for _, r := range page {
		repos = append(repos, r.Name)
	}
	next, err := l.onward(target, nextLink(header.Values("Link")))
	return repos, next, err
}
