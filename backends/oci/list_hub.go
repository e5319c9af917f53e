// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
)

// A hubLister asks Docker Hub (docs.docker.com/reference/api/hub/latest, "List
// repositories" and "Create access token"). What is public it tells everybody.
type hubLister struct {
	*api
	session sync.Mutex      // guards the fields below
	token   string          // a JWT, for minutes
	of      auth.Credential // whose it is
}

func newHubLister(a *api) lister {
	l := &hubLister{api: a}
	a.sign, a.expired = l.sign, l.forget
	return l
}

func (l *hubLister) start(namespace string) []string {
	return []string{l.path("v2", "namespaces", namespace, "repositories") + "?page_size=" + apiPage}
}

func (l *hubLister) page(ctx context.Context, namespace, target string) ([]string, string, error) {
	var page struct {
		Next    string `json:"next"` // null on the last one
		Results list[struct {
			Name string `json:"name"`
			Type string `json:"repository_type"` // "image", "plugin"; null of old ones
		}] `json:"results"`
	}
	if _, err := l.get(ctx, target, &page); err != nil {
		return nil, "", err
	}
	if err := page.Results.check("results"); err != nil {
		return nil, "", err
	}
	var repos []string
	for _, r := range page.Results.all {
		if r.Type == "" || r.Type == "image" {
			repos = append(repos, namespace+"/"+r.Name)
		}
	}
	next, err := l.onward(target, page.Next)
	return repos, next, err
}

// sign adds a token that the login was exchanged for, if there is a login.
func (l *hubLister) sign(ctx context.Context, req *http.Request) error {
	cred, err := l.credential(ctx)
	if err != nil || cred.Username == "" || cred.Password == "" {
		return err
	}
	l.session.Lock()
	token := l.token
	if l.of != cred {
		token = ""
	}
	l.session.Unlock()
	if token == "" {
		if token, err = l.exchange(ctx, cred); err != nil {
			return err
		}
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return nil
}

func (l *hubLister) exchange(ctx context.Context, cred auth.Credential) (string, error) {
	body, err := json.Marshal(map[string]string{"identifier": cred.Username, "secret": cred.Password})
	if err != nil {
		return "", err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if _, err := l.ask(ctx, http.MethodPost, l.path("v2", "auth", "token"), body, &answer); err != nil {
		return "", err
	}
	if answer.AccessToken == "" || strings.ContainsAny(answer.AccessToken, "\r\n") {
		return "", fmt.Errorf("%w: %s gives no access token", backends.ErrBadAnswer, l.base.Host)
	}
	l.session.Lock()
	defer l.session.Unlock()
	l.token, l.of = answer.AccessToken, cred
	return answer.AccessToken, nil
}

func (l *hubLister) forget() bool {
	l.session.Lock()
	defer l.session.Unlock()
	had := l.token != ""
	l.token = ""
	return had
}
