// SPDX-License-Identifier: Apache-2.0

package all

import (
	"github.com/sregfs/sregfs/backends/drive"
	"github.com/sregfs/sregfs/backends/dropbox"
	"github.com/sregfs/sregfs/backends/gcs"
	"github.com/sregfs/sregfs/backends/gitlab"
	"github.com/sregfs/sregfs/backends/globus"
	"github.com/sregfs/sregfs/backends/hub"
	"github.com/sregfs/sregfs/backends/s3"
	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/swift"
)

// A SregistryClient says how a backend of the sregistry client becomes a remote of ours.
// Where several variables are named, the first that is set counts; those in lower case
// are what old versions wrote into the settings file, and no variables of the environment.
type SregistryClient struct {
	Name  string // its name for the backend, and our remote's
	Alias string // a part of other names that it takes for the same; "" if there is none
	Type  string // ours

	Needs string // the variables without which there is no remote
	Alone bool   // being the active client is enough for there to be one
	Table bool   // a table in the settings file is, too

	URL   string // the variables with the address; may be ""
	HTTP  string // the variable that says to do without https
	User  string
	Token string
	// OwnScheme says that HTTP counts by being set at all, and not for an address that
	// has a scheme; else a true value goes before the scheme.
	OwnScheme bool
	// Verified says that HTTPS_NOVERIFY is not for it.
	Verified bool

	Config map[string]string // settings of ours to variables
	Fixed  map[string]string // settings of ours that it has built in; a variable goes before that
}

// SregistryClients are all that are taken over. Nobody changes them.
var SregistryClients = []SregistryClient{
	{Name: "dropbox", Type: dropbox.Type.Name, Needs: "SREGISTRY_DROPBOX_TOKEN", Token: "SREGISTRY_DROPBOX_TOKEN", Verified: true},
	{
		Name: "google-drive", Type: drive.Type.Name, Needs: "SREGISTRY_GOOGLE_DRIVE_CREDENTIALS SREGISTRY_GOOGLE_DRIVE_ROOT", Alone: true, Verified: true,
		Config: map[string]string{"client_file": "SREGISTRY_GOOGLE_DRIVE_CREDENTIALS", "root": "SREGISTRY_GOOGLE_DRIVE_ROOT"},
	},
	{
		Name: "google-storage", Type: gcs.Type.Name, Needs: "SREGISTRY_GOOGLE_STORAGE_BUCKET", Verified: true,
		Config: map[string]string{"bucket": "SREGISTRY_GOOGLE_STORAGE_BUCKET", "credentials": "GOOGLE_APPLICATION_CREDENTIALS"},
	},
	{
		Name: "registry", Type: sregistry.Type.Name, OwnScheme: true,
		Needs: "SREGISTRY_REGISTRY_BASE base", URL: "SREGISTRY_REGISTRY_BASE base", HTTP: "SREGISTRY_REGISTRY_NOHTTPS",
		User: "SREGISTRY_REGISTRY_USERNAME username", Token: "SREGISTRY_REGISTRY_TOKEN token",
	},
	{
		Name: "globus", Type: globus.Type.Name, Alone: true, Verified: true,
		Needs: "GLOBUS_TRANSFER_RESPONSE SREGISTRY_GLOBUS_ENDPOINT", Token: "GLOBUS_TRANSFER_RESPONSE",
		Config: map[string]string{"endpoint": "SREGISTRY_GLOBUS_ENDPOINT", "root": "SREGISTRY_GLOBUS_ROOT", "client_id": "SREGISTRY_GLOBUS_CLIENT_ID"},
		Fixed:  map[string]string{"root": "/~/.singularity/shub"}, // where it pushes to
	},
	{Name: "hub", Alias: "shub", Type: hub.Type.Name, Alone: true, Table: true},
	{
		Name: "docker", Type: "docker", Alone: true,
		Needs: "SREGISTRY_DOCKERHUB_BASE SREGISTRY_DOCKERHUB_USERNAME SINGULARITY_DOCKER_USERNAME",
		URL:   "SREGISTRY_DOCKERHUB_BASE", HTTP: "SREGISTRY_DOCKERHUB_NOHTTPS",
		User:  "SREGISTRY_DOCKERHUB_USERNAME SINGULARITY_DOCKER_USERNAME",
		Token: "SREGISTRY_DOCKERHUB_PASSWORD SINGULARITY_DOCKER_PASSWORD",
	},
	{
		Name: "nvidia", Type: "nvidia", Needs: "SREGISTRY_NVIDIA_TOKEN", Alone: true,
		URL: "SREGISTRY_NVIDIA_BASE", HTTP: "SREGISTRY_NVIDIA_NOHTTPS",
		User: "SREGISTRY_NVIDIA_USERNAME", Token: "SREGISTRY_NVIDIA_TOKEN",
	},
	{
		Name: "aws", Type: "aws", Needs: "SREGISTRY_AWS_ID SREGISTRY_AWS_BASE", Alone: true,
		URL: "SREGISTRY_AWS_BASE", HTTP: "SREGISTRY_AWS_NOHTTPS",
		Config: map[string]string{"account": "SREGISTRY_AWS_ID", "region": "SREGISTRY_AWS_ZONE"},
	},
	{
		Name: "s3", Type: s3.Type.Name, Needs: "SREGISTRY_S3_BUCKET", URL: "SREGISTRY_S3_BASE",
		User: "AWS_ACCESS_KEY_ID", Token: "AWS_SECRET_ACCESS_KEY",
		Config: map[string]string{"bucket": "SREGISTRY_S3_BUCKET", "signature": "SREGISTRY_S3_SIGNATURE"},
	},
	{
		Name: "gitlab", Type: gitlab.JobsType.Name, Needs: "SREGISTRY_GITLAB_TOKEN",
		URL: "SREGISTRY_GITLAB_BASE", Token: "SREGISTRY_GITLAB_TOKEN",
		Config: map[string]string{"folder": "SREGISTRY_GITLAB_FOLDER"},
	},
	{
		Name: "swift", Type: swift.Type.Name, Needs: "SREGISTRY_SWIFT_URL SREGISTRY_SWIFT_OS_STORAGE_URL",
		URL: "SREGISTRY_SWIFT_URL", User: "SREGISTRY_SWIFT_USER", Token: "SREGISTRY_SWIFT_TOKEN SREGISTRY_SWIFT_OS_AUTH_TOKEN",
		Config: map[string]string{
			"auth": "SREGISTRY_SWIFT_AUTHTYPE", "project": "SREGISTRY_SWIFT_TENANT", "region": "SREGISTRY_SWIFT_REGION",
			"storage_url": "SREGISTRY_SWIFT_OS_STORAGE_URL",
		},
	},
}
