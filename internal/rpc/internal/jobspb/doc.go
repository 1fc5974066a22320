// Package jobspb is generated from jobs.proto. Only package rpc sees it.
package jobspb
