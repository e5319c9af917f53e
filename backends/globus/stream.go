// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// errStopped ends a listing of which no more is wanted.
var errStopped = errors.New("no more is wanted")

// eachField calls fn with the key of each field of an object; fn reads the value.
func eachField(dec *json.Decoder, fn func(key string) error) error {
	if err := expect(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string) // an object has no other keys
		if err := fn(key); err != nil {
			return err
		}
	}
	return expect(dec, '}')
}

// eachElement calls fn for each element of an array, which fn reads.
//
// Errors: errStopped once fn returns false.
func eachElement(dec *json.Decoder, fn func() (bool, error)) error {
	if err := expect(dec, '['); err != nil {
		return err
	}
	for dec.More() {
		more, err := fn()
		if err != nil {
			return err
		}
		if !more {
			return errStopped
		}
	}
	return expect(dec, ']')
}

// errOther is JSON that is something else.
var errOther = fmt.Errorf("%w: not the listing of a Globus collection", backends.ErrBadAnswer)

func expect(dec *json.Decoder, delim json.Delim) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	if token != delim {
		if token == nil {
			return fmt.Errorf("%w: null where something should be", backends.ErrBadAnswer)
		}
		return errOther
	}
	return nil
}

// listingError says what an error of reading a listing means.
func listingError(err error) error {
	_, syntax := errors.AsType[*json.SyntaxError](err)
	_, kind := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case errors.Is(err, backends.ErrBadAnswer):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the listing broke off", backends.ErrUnavailable)
	case syntax:
		return httpx.ErrPage
	case kind:
		return errOther
	}
	return backends.TransportError(err)
}
