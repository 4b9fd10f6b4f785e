// Show the fleet's own document. No validator is asked, because it would be on another site.
SwaggerUIBundle({ url: '/openapi.json', dom_id: '#api', deepLinking: true, docExpansion: 'list', validatorUrl: null });
