// SPDX-License-Identifier: Apache-2.0

package presettest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// HubLimits counts the manifests that are got, as Docker Hub does
// (docs.docker.com/docker-hub/usage/pulls): a HEAD is free, a GET over the limit is
// a 429. Its Before stands before a registry.
type HubLimits struct {
	Of     int    // pulls in six hours
	Source string // an address, or an account

	mu   sync.Mutex // guards the field below
	used int
}

// Use lets n pulls have happened.
func (h *HubLimits) Use(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.used = n
}

// Used returns how many pulls there were.
func (h *HubLimits) Used() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used
}

// Before is a middleware of ocitest.
func (h *HubLimits) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !strings.Contains(req.URL.Path, "/manifests/") || req.Method != http.MethodGet && req.Method != http.MethodHead {
			next.ServeHTTP(w, req)
			return
		}
		h.mu.Lock()
		over := h.used >= h.Of && req.Method == http.MethodGet
		if !over && req.Method == http.MethodGet {
			h.used++
		}
		left := h.Of - h.used
		h.mu.Unlock()
		w.Header().Set("RateLimit-Limit", strconv.Itoa(h.Of)+";w=21600")
		w.Header().Set("RateLimit-Remaining", strconv.Itoa(left)+";w=21600")
		w.Header().Set("Docker-RateLimit-Source", h.Source)
		if over {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit."}]}`)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// NGC logs in as nvcr.io does (github.com/NVIDIA/nvidia-container-toolkit, issue
// 1945): who has no token is sent to /proxy_auth, by a challenge without a
// service; who has one that has expired to another host, which gives none.
type NGC struct {
	Key string // the password of $oauthtoken

	mu     sync.Mutex // guards the fields below
	issued int
	good   map[string]bool // tokens
	other  *httptest.Server
	asked  []string
}

// StartNGC returns the login of a registry that is to be put before it.
func StartNGC(t testing.TB, key string) *NGC {
	t.Helper()
	n := &NGC{Key: key}
	n.other = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n.note("authn" + req.URL.Path)
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"anonymous refresh is not supported"}]}`)
	}))
	t.Cleanup(n.other.Close)
	return n
}

func (n *NGC) note(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, what)
}

// Asked returns where tokens were asked for.
func (n *NGC) Asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

// Expire makes the tokens that were given out worthless.
func (n *NGC) Expire() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.good = nil
}

// Revoke makes the key worthless, and the tokens.
func (n *NGC) Revoke() {
	n.Expire()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Key = "another"
}

// Before is a middleware of ocitest.
func (n *NGC) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/proxy_auth" {
			n.issue(w, req)
			return
		}
		header := req.Header.Get("Authorization")
		n.mu.Lock()
		good := n.good[strings.TrimPrefix(header, "Bearer ")]
		n.mu.Unlock()
		if good {
			next.ServeHTTP(w, req)
			return
		}
		realm := "http://" + req.Host + "/proxy_auth"
		if header != "" {
			realm = n.other.URL + "/token"
		}
		challenge := fmt.Sprintf(`Bearer realm=%q`, realm)
		if repo, _, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/"); ok {
			challenge += fmt.Sprintf(`,scope="repository:%s:pull"`, repo)
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
	})
}

func (n *NGC) issue(w http.ResponseWriter, req *http.Request) {
	n.note("proxy_auth")
	user, key, _ := req.BasicAuth()
	n.mu.Lock()
	defer n.mu.Unlock()
	if user != "$oauthtoken" || key != n.Key {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	n.issued++
	token := fmt.Sprintf("ngc-%d", n.issued)
	if n.good == nil {
		n.good = map[string]bool{}
	}
	n.good[token] = true
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 600})
}

// ECR is the login of Amazon's registry
// (docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html), and that its
// repositories have to be made before a push (…/docker-push-ecr-image.html).
type ECR struct {
	// CreateOnPush lets a push make the repository: for tests that are about
	// something else.
	CreateOnPush bool

	mu    sync.Mutex // guards the fields below
	good  string
	old   []string
	repos []string
}

// Issue returns a new token; those before are expired.
func (e *ECR) Issue() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.good != "" {
		e.old = append(e.old, e.good)
	}
	e.good = fmt.Sprintf("ecr-%d", len(e.old)+1)
	return e.good
}

// Create is "aws ecr create-repository".
func (e *ECR) Create(repo string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.repos = append(e.repos, repo)
}

// Before is a middleware of ocitest.
func (e *ECR) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, password, basic := req.BasicAuth()
		e.mu.Lock()
		known := basic && user == "AWS" && password == e.good
		expired := basic && slices.Contains(e.old, password)
		repo, _, upload := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/blobs/uploads/")
		missing := upload && !e.CreateOnPush && !slices.Contains(e.repos, repo)
		e.mu.Unlock()
		status, code, message := 0, "", ""
		switch {
		case expired:
			status, code, message = http.StatusForbidden, "DENIED", "Your authorization token has expired. Reauthenticate and try again."
		case !known:
			w.Header().Set("WWW-Authenticate", `Basic realm="https://123456789012.dkr.ecr.us-east-1.amazonaws.com/",service="ecr.amazonaws.com"`)
			status, code, message = http.StatusUnauthorized, "UNAUTHORIZED", "Not Authorized"
		case missing:
			status, code = http.StatusNotFound, "NAME_UNKNOWN"
			message = "The repository with name '" + repo + "' does not exist in the registry with id '123456789012'"
		default:
			next.ServeHTTP(w, req)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": code, "message": message}}})
	})
}
