// Package headspb is generated from heads.proto. Only package rpc sees it.
package headspb
