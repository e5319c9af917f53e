// SPDX-License-Identifier: Apache-2.0

package backends

import "context"

// Somebody who reads a file cannot be told "try again later": a container whose
// program is paged in from an image gets SIGBUS. So what a reader waits for has all
// of the time that Client.Timeout allows, whatever was found out about the service
// meanwhile. What nobody waits for, and what can be answered from memory, is left to
// the breaker.

type demandKey struct{}

// Demanded returns a context for what somebody waits for, from the moment when
// since is closed; nil means from now on. A Client tries what is done with it until
// Client.Timeout is over, and through an open breaker: then all such tries together
// are made one after another, a hundred milliseconds to two seconds apart, and when
// one of them is answered all go on.
func Demanded(ctx context.Context, since <-chan struct{}) context.Context {
	if since == nil {
		since = always
	}
	return context.WithValue(ctx, demandKey{}, since)
}

var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// A demand is closed once somebody waits; nil if nobody ever does.
type demand <-chan struct{}

func demandOf(ctx context.Context) demand {
	since, _ := ctx.Value(demandKey{}).(<-chan struct{})
	return since
}

func (d demand) raised() bool {
	select {
	case <-d:
		return true
	default:
		return false
	}
}
