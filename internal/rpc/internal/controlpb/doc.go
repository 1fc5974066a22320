// Package controlpb is generated from control.proto. Only package rpc sees it.
package controlpb
