// SPDX-License-Identifier: Apache-2.0

package swift

import (
	"cmp"
	"context"

	"github.com/sregfs/sregfs/backends"
)

// fromEnvironment takes a login as a whole from the variables that OpenStack's own clients have
// for it (OS_*, which an "openrc" file sets), or python-swiftclient's for the old kind (ST_*).
// A remote that names its service has none of it: its password is not sent elsewhere.
func fromEnvironment(cfg Config, env backends.Env) (Config, backends.Env) {
	get := func(names ...string) string {
		for _, name := range names {
			if value := env.Getvar(name); value != "" {
				return value
			}
		}
		return ""
	}
	with := func(user, secret string) {
		env.User = cmp.Or(env.User, user)
		if env.Secret == nil && secret != "" {
			env.Secret = func(context.Context, bool) (string, error) { return secret, nil }
		}
	}
	switch {
	case get("OS_STORAGE_URL") != "" && get("OS_AUTH_TOKEN") != "":
		cfg.StorageURL, cfg.Auth = get("OS_STORAGE_URL"), "preauth"
		with("", get("OS_AUTH_TOKEN"))
	case get("OS_AUTH_URL") != "":
		cfg.URL, cfg.StorageURL = get("OS_AUTH_URL"), get("OS_STORAGE_URL")
		cfg.Auth = cmp.Or(cfg.Auth, map[string]string{"1": "v1", "1.0": "v1", "2": "v2", "2.0": "v2", "3": "v3"}[get("OS_IDENTITY_API_VERSION", "OS_AUTH_VERSION")])
		cfg.Project = cmp.Or(cfg.Project, get("OS_PROJECT_NAME", "OS_TENANT_NAME"))
		cfg.ProjectID = cmp.Or(cfg.ProjectID, get("OS_PROJECT_ID", "OS_TENANT_ID"))
		cfg.Domain = cmp.Or(cfg.Domain, get("OS_USER_DOMAIN_NAME"))
		cfg.DomainID = cmp.Or(cfg.DomainID, get("OS_USER_DOMAIN_ID"))
		cfg.ProjectDomain = cmp.Or(cfg.ProjectDomain, get("OS_PROJECT_DOMAIN_NAME"))
		cfg.ProjectDomainID = cmp.Or(cfg.ProjectDomainID, get("OS_PROJECT_DOMAIN_ID"))
		cfg.Region = cmp.Or(cfg.Region, get("OS_REGION_NAME"))
		if cfg.Credential = cmp.Or(cfg.Credential, get("OS_APPLICATION_CREDENTIAL_ID")); cfg.Credential != "" {
			with("", get("OS_APPLICATION_CREDENTIAL_SECRET"))
			break
		}
		with(get("OS_USERNAME"), get("OS_PASSWORD"))
	case get("ST_AUTH") != "":
		cfg.URL, cfg.Auth = get("ST_AUTH"), cmp.Or(cfg.Auth, "v1")
		with(get("ST_USER"), get("ST_KEY"))
	}
	return cfg, env
}
