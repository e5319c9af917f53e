// SPDX-License-Identifier: Apache-2.0

package ocitest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Resolver returns one for net.DefaultResolver that asks nobody: addressOf says which IPv4
// address a name, in lower case and with a dot at its end, has. It is called for each
// question, from any goroutine.
func Resolver(addressOf func(name string) [4]byte) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		conn, server := net.Pipe()
		go func() {
			defer server.Close()
			for {
				if err := answer(server, addressOf); err != nil {
					return
				}
			}
		}()
		return conn, nil
	}}
}

// answer answers one question, as a name server does over TCP.
func answer(conn io.ReadWriter, addressOf func(string) [4]byte) error {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	text := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, text); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(text); err != nil {
		return err
	}
	m.Response, m.Additionals = true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
		address := dnsmessage.AResource{A: addressOf(strings.ToLower(q.Name.String()))}
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &address}}
	}
	packed, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)) //nolint:gosec // it is short
	return err
}
