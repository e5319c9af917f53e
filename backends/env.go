// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"bytes"
	"cmp"
	"context"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// An Opener makes a backend from its part of the configuration. It may look at
// files of this machine but makes no network request: a service that is down
// must not keep the others from being mounted. backends/all is the table of them.
type Opener func(ctx context.Context, env Env) (Backend, error)

// An Env is all that a backend may use of the outside world.
type Env struct {
	Remote string         // the remote's name
	Type   string         // the key in backends/all by which it was opened
	HTTP   *http.Client   // for every request; never nil
	Config map[string]any // the [remotes.NAME] table without the keys that all types share
	Secret SecretFunc     // the configured token or password; nil if none is configured
	User   string         // the user name that goes with Secret; may be ""
	Home   string         // home directory, for the credential files of other tools; may be ""
	Cache  string         // directory of this remote for what can be fetched again; it need not exist; "" if there is none
	Getenv func(string) string
	// Helpers is the environment of programs that the backend starts to be given a
	// login. It has no secret of other services.
	Helpers []string
	Arch    string // wanted architecture in Go's spelling ("amd64"); "" means this machine's
	Log     *slog.Logger
}

// A SecretFunc returns a token or password. It is asked for each new login, so
// that a changed file or a rotating command is noticed; fresh demands one that
// was not handed out before (the last one was refused). Many goroutines may call it
// at once.
type SecretFunc func(ctx context.Context, fresh bool) (string, error)

// WantedArch returns env.Arch, or this machine's architecture.
func (env Env) WantedArch() string {
	if env.Arch != "" {
		return env.Arch
	}
	return runtime.GOARCH
}

// Logger returns env.Log, or a logger that drops everything.
func (env Env) Logger() *slog.Logger {
	if env.Log != nil {
		return env.Log
	}
	return slog.New(slog.DiscardHandler)
}

// Getvar returns the environment variable name, "" where env has no Getenv.
func (env Env) Getvar(name string) string {
	if env.Getenv == nil {
		return ""
	}
	return env.Getenv(name)
}

// Decode fills the struct that dst points to from env.Config. Field names are
// matched by their `toml` tag. What is already in dst is the default.
//
// Errors: fs.ErrInvalid for a key that dst lacks, naming the nearest one that it
// has, and for a value of the wrong type.
func (env Env) Decode(dst any) error {
	err := DecodeTable(env.Config, dst)
	if missing, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		key := strings.Join(missing.Errors[0].Key(), ".")
		return &SettingError{key, fmt.Errorf("%w: remote %s has no setting %q for type %q%s",
			fs.ErrInvalid, env.Remote, key, env.Type, DidYouMean(key, slices.Sorted(maps.Keys(tomlFields(dst)))))}
	}
	if err != nil {
		wrapped := fmt.Errorf("%w: remote %s: %v", fs.ErrInvalid, env.Remote, err)
		if e, ok := errors.AsType[*SettingError](err); ok {
			return &SettingError{e.Key, wrapped}
		}
		return wrapped
	}
	return nil
}

// A SettingError says which key of a table the error Err is about.
type SettingError struct {
	Key string
	Err error
}

// Error implements error: it is that of Err, which names the key.
func (e *SettingError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *SettingError) Unwrap() error { return e.Err }

// DecodeTable fills the struct that dst points to from a table of the configuration,
// as Env.Decode does.
//
// Errors: *toml.StrictMissingError for a key that dst lacks; *SettingError.
func DecodeTable(table map[string]any, dst any) error {
	text, err := toml.Marshal(table)
	if err != nil {
		return err
	}
	err = toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(dst)
	e, ok := errors.AsType[*toml.DecodeError](err)
	if _, missing := errors.AsType[*toml.StrictMissingError](err); missing || !ok || len(e.Key()) == 0 {
		return err
	}
	key, problem := strings.Join(e.Key(), "."), strings.TrimPrefix(e.Error(), "toml: ")
	if strings.HasPrefix(problem, "cannot decode TOML ") { // the rest is types of Go
		problem = wanted(key, tomlFields(dst)[key])
	}
	return &SettingError{key, fmt.Errorf("%s: %s", key, problem)}
}

// wanted says what the value of a key looks like; t is nil for a key of a nested table.
func wanted(key string, t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	kind, example := "text in quotes", `"…"`
	switch {
	case t == nil:
		return "the value is of the wrong kind"
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
	case t.Kind() == reflect.Slice:
		kind, example = "a list", `["one", "two"]`
	case t.Kind() == reflect.Bool:
		kind, example = "true or false", "true"
	case t.Kind() != reflect.String:
		kind, example = "a number", "1"
	}
	return fmt.Sprintf("%s is wanted, as in %s = %s", kind, key, example)
}

// tomlFields returns the keys of a struct with their types.
func tomlFields(dst any) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for f := range reflect.TypeOf(dst).Elem().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name = cmp.Or(name, strings.ToLower(f.Name)); f.IsExported() && name != "-" {
			fields[name] = f.Type
		}
	}
	return fields
}

// DidYouMean returns ` (did you mean "x"?)` for the known word nearest to word,
// or a list of the known words if none is near.
func DidYouMean(word string, known []string) string {
	best, bestDist := "", len(word)/2+1
	for _, k := range known {
		if d := editDistance(word, k); d < bestDist {
			best, bestDist = k, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf(" (did you mean %q?)", best)
	case len(known) > 0:
		return " (known: " + strings.Join(known, ", ") + ")"
	}
	return ""
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(diag+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
