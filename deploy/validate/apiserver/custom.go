package main

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured/unstructuredscheme"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json" // whole numbers stay whole, as CEL needs them
	"k8s.io/apiserver/pkg/registry/rest"
)

// A kind by its CustomResourceDefinition: the schema, its defaults, and its rules in CEL.
func custom(kind schema.GroupVersionKind, definitions string) (decoder, rest.RESTCreateStrategy, error) {
	definition, version, err := definitionOf(kind, definitions)
	if err != nil {
		return nil, nil, err
	}
	internal := &apiextensions.JSONSchemaProps{}
	given := version.Schema.OpenAPIV3Schema
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(given, internal, nil); err != nil {
		return nil, nil, err
	}
	structural, err := structuralschema.NewStructural(internal)
	if err != nil {
		return nil, nil, err
	}
	validator, _, err := validation.NewSchemaValidator(internal)
	if err != nil {
		return nil, nil, err
	}
	decode := func(text []byte) (runtime.Object, error) {
		object := &unstructured.Unstructured{}
		if err := json.Unmarshal(text, &object.Object); err != nil {
			return nil, err
		}
		defaulting.PruneNonNullableNullsWithoutDefaults(object.Object, structural)
		defaulting.Default(object.Object, structural)
		return object, nil
	}
	namespaced := definition.Spec.Scope == apiextensionsv1.NamespaceScoped
	typer := unstructuredscheme.NewUnstructuredObjectTyper()
	return decode, customresource.NewStrategy(typer, namespaced, kind, validator, nil, structural, nil, nil, nil), nil
}

func definitionOf(kind schema.GroupVersionKind, folder string) (
	*apiextensionsv1.CustomResourceDefinition, *apiextensionsv1.CustomResourceDefinitionVersion, error,
) {
	text, err := os.ReadFile(filepath.Join(folder, fmt.Sprintf("%s.%s.json", kind.Kind, kind.Group)))
	if err != nil {
		return nil, nil, fmt.Errorf("no kind %s is known", kind.GroupKind())
	}
	definition := &apiextensionsv1.CustomResourceDefinition{}
	if err := json.Unmarshal(text, definition); err != nil {
		return nil, nil, err
	}
	for number := range definition.Spec.Versions {
		if version := &definition.Spec.Versions[number]; version.Name == kind.Version && version.Served {
			return definition, version, nil
		}
	}
	return nil, nil, fmt.Errorf("%s has no version %s", kind.GroupKind(), kind.Version)
}
