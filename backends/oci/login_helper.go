// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
)

const (
	helperPrefix  = "docker-credential-"
	helperTimeout = 30 * time.Second // it may ask a vault on the network
	// What a helper says where it has nothing, and the user name that stands for a
	// token: github.com/docker/docker-credential-helpers, credentials/error.go and
	// docs.docker.com/reference/cli/docker/login/#credential-helper-protocol.
	helperHasNothing = "credentials not found in native keychain"
	helperToken      = "<token>"
)

// cloudVars are the variables by which the helpers of cloud services find their own
// logins, by the names of the helpers.
var cloudVars = map[string][]string{
	"ecr-login": {
		"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
		"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_SDK_LOAD_CONFIG", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_DISABLED", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ECR",
		"AWS_CA_BUNDLE", "AWS_ECR_DISABLE_CACHE", "AWS_ECR_CACHE_DIR", "AWS_ECR_IGNORE_CREDS_STORAGE",
	},
	"gcloud": {"CLOUDSDK_CONFIG", "CLOUDSDK_ACTIVE_CONFIG_NAME", "CLOUDSDK_PYTHON", "GOOGLE_APPLICATION_CREDENTIALS"},
	"gcr":    {"CLOUDSDK_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS"},
	"acr-env": {
		"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST", "AZURE_CONFIG_DIR",
	},
}

// askHelper asks docker-credential-HELPER for a login. The program gets what all
// helpers get of our environment, and the variables of its own service: not the secrets
// of every remote, as oras-go's store would give it.
//
// Errors: backends.ErrUnauthorized, with the helper's words.
func (l *login) askHelper(ctx context.Context, helper, server string) (auth.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	program := helperPrefix + helper
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Env = append([]string{}, l.helperEnv...)
	for _, name := range cloudVars[helper] {
		if value := l.getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Stdin = strings.NewReader(server)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	said := string(bytes.TrimSpace(out))
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return auth.EmptyCredential, backends.Saying(backends.ErrUnauthorized, "the credential helper %s is not installed", program)
	case err != nil && said == helperHasNothing:
		return auth.EmptyCredential, nil
	case err != nil && said != "":
		return auth.EmptyCredential, backends.Saying(backends.ErrUnauthorized, "%s: %.200q", program, said)
	case err != nil:
		return auth.EmptyCredential, backends.Saying(backends.ErrUnauthorized, "%s: %v", program, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return auth.EmptyCredential, backends.Saying(backends.ErrUnauthorized, "%s gives no login", program)
	}
	if answer.Username == helperToken {
		return auth.Credential{RefreshToken: answer.Secret}, nil
	}
	return auth.Credential{Username: answer.Username, Password: answer.Secret}, nil
}
