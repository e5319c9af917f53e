// SPDX-License-Identifier: Apache-2.0

// Package config finds out what the commands are told to do: by flags, by the
// environment, by the configuration file, by what the sregistry client left
// behind, and by default, in this order.
//
// A setting is declared once, in [Settings.Flags]: the flag --cache-size, the
// variable SREGFS_CACHE_SIZE, the mount option cache_size= and the file's key
// cache_size are the same thing. Remotes come from the [remotes.NAME] tables, from
// --remote and from sregistry's own variables.
//
// The package reads and judges. It opens no backend and creates nothing. Start at
// [Load].
package config
