// SPDX-License-Identifier: Apache-2.0

package swift

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/swift/swifttest"
)

// A keystone logs in at an account by the requests of the Identity API (versions 2.0 and 3), and
// takes only what is right in all parts. The token is one of tempauth's, for a real Swift.
type keystone struct {
	URL string

	account  *swifttest.Account
	server   *swifttest.Server
	t        *testing.T
	password string
}

func startKeystone(t *testing.T, s *swifttest.Server, a *swifttest.Account) *keystone {
	t.Helper()
	k := &keystone{account: a, server: s, t: t, password: swifttest.Key}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v3/auth/tokens", k.v3)
	mux.HandleFunc("POST /v2.0/tokens", k.v2)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	k.URL = srv.URL
	return k
}

func (k *keystone) v3(w http.ResponseWriter, req *http.Request) {
	type named struct{ ID, Name string }
	var in struct {
		Auth struct {
			Identity struct {
				Methods  []string
				Password struct {
					User struct {
						Name, Password string
						Domain         named
					}
				}
				Credential struct {
					ID, Secret string
				} `json:"application_credential"`
			}
			Scope struct {
				Project struct {
					Name   string
					Domain named
				}
			}
		}
	}
	ok := json.NewDecoder(req.Body).Decode(&in) == nil && len(in.Auth.Identity.Methods) == 1
	if ok {
		user, project := in.Auth.Identity.Password.User, in.Auth.Scope.Project
		switch in.Auth.Identity.Methods[0] {
		case "password":
			ok = user.Name == "me" && user.Password == k.password && user.Domain.Name == "Default" && project.Name == "lab" && project.Domain.Name == "Default"
		case "application_credential": // its project goes without saying, and a scope is an error
			ok = in.Auth.Identity.Credential == struct{ ID, Secret string }{"cred", k.password} && project.Name == ""
		default:
			ok = false
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}`))
		return
	}
	w.Header().Set("X-Subject-Token", k.server.Token(k.t, k.account.User))
	w.WriteHeader(http.StatusCreated)
	endpoint := func(face, region, address string) map[string]any {
		return map[string]any{"id": face + region, "interface": face, "region": region, "region_id": region, "url": address}
	}
	k.reply(w, map[string]any{"token": map[string]any{
		"methods": in.Auth.Identity.Methods, "expires_at": time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z"),
		"user":    map[string]any{"id": "1", "name": "me", "domain": map[string]any{"id": "default", "name": "Default"}},
		"project": map[string]any{"id": "2", "name": "lab", "domain": map[string]any{"id": "default", "name": "Default"}},
		"roles":   []any{map[string]any{"id": "3", "name": "member"}}, "issued_at": time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"),
		"catalog": []any{
			map[string]any{"type": "identity", "name": "keystone", "id": "1", "endpoints": []any{endpoint("public", "one", k.URL)}},
			map[string]any{"type": "object-store", "name": "swift", "id": "2", "endpoints": []any{
				endpoint("admin", "one", "http://127.0.0.1:1/"), endpoint("public", "two", "http://127.0.0.1:1/v1"), endpoint("public", "one", k.account.Storage),
			}},
		},
	}})
}

func (k *keystone) v2(w http.ResponseWriter, req *http.Request) {
	var in struct {
		Auth struct {
			Tenant   string                              `json:"tenantName"`
			Password struct{ Username, Password string } `json:"passwordCredentials"`
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if json.NewDecoder(req.Body).Decode(&in) != nil || in.Auth.Tenant != "lab" || in.Auth.Password.Username != "me" || in.Auth.Password.Password != k.password {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"error":{"code":401,"message":"no","title":"Unauthorized"}}`))
		return
	}
	k.reply(w, map[string]any{"access": map[string]any{
		"token": map[string]any{"id": k.server.Token(k.t, k.account.User), "expires": time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "tenant": map[string]any{"id": "1", "name": "lab"}},
		"user":  map[string]any{"id": "1", "name": "me", "username": "me", "roles": []any{}},
		"serviceCatalog": []any{map[string]any{"type": "object-store", "name": "swift", "endpoints": []any{
			map[string]any{"region": "one", "publicURL": k.account.Storage, "internalURL": k.account.Storage, "adminURL": "http://127.0.0.1:1/"},
		}}},
	}})
}

func (k *keystone) reply(w http.ResponseWriter, answer any) {
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		k.t.Error(err)
	}
}
