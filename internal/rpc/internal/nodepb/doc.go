// Package nodepb is generated from node.proto. Only package rpc sees it.
package nodepb
