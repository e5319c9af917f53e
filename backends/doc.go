// SPDX-License-Identifier: Apache-2.0

// Package backends says what a container image registry is to sregfs.
//
// A registry is a [Backend]: two methods, Stat and Open. Everything else that
// one can do (list, search, push, delete, share …) is a separate interface of
// one method, which a backend implements or leaves out. Only [Client] ever asks
// which ones a backend has; the rest of the program holds a *Client and calls
// its methods.
//
// # Names
//
// A [Ref] names an image inside one registry, a [URI] says which registry too:
//
//	lab://vsoch/hello:2.0@sha256:…
//	│     │     │     │   └ version: a digest or a revision
//	│     │     │     └ tag
//	│     │     └ name
//	│     └ collection, one or more parts
//	└ remote, the name of one configured backend
//
// [EscapePart] and its inverse keep names of any content apart from the
// characters that a URI or a path gives a meaning to.
//
// # What it is not
//
// The package knows no file tree, no cache and no configuration file. It never
// reads the environment: a backend is opened with an [Env] that holds all it
// may use of the outside world, the *http.Client above all.
//
// # Where to start
//
// docs/adding-a-backend.md builds a backend step by step, which is
// backendtest/plain_read_test.go; backends/backendtest checks the result.
package backends
